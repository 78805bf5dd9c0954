"""A protocol names all that measures, layers, neurons and edges ask of a model of any architecture."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from decomp.core.ablation import Unembedding
from decomp.core.folding import FoldedNetwork
from decomp.core.network import Affine, Network
from decomp.core.operating_point import OperatingPoint
from decomp.core.rules import GateRule, Rules

T = TypeVar("T")


class Patch(Protocol):
    """Functions that are called during a forward pass, in its order, and may change it.

    Stages are counted from 0: every sublayer, after it the norm that follows its residual sum where there is
    one, and at the end the logits.
    """

    def embedding(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return what the first block is given, in place of `hidden`."""
        ...

    def input(self, stage: int, stream: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return a stage's input, before its own norm, in place of `stream`; may be called again with the same."""
        ...

    def projected(self, stage: int, kind: int, output: Float[Tensor, "B T HV"]) -> Float[Tensor, "B T HV"]:
        """Return an attention's queries (0), keys (1) or values (2), heads side by side, in place of `output`."""
        ...

    def output(self, stage: int, value: Float[Tensor, "B T _"]) -> None:
        """Take what a stage gives: an attention the mixed values before its output projection, others their output."""
        ...


class Columns(Protocol):
    """Some columns of what a module gives."""

    @property
    def module(self) -> nn.Module:
        """Return the module."""
        ...

    @property
    def columns(self) -> "slice | Int[Tensor, ' outputs']":
        """Return which columns of its output: a slice, or their numbers."""
        ...


class Model(Protocol):
    """A causal language model whose inside can be looked at: `models` has one for every architecture."""

    @property
    def config(self) -> Any:
        """Return the configuration of transformers."""
        ...

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision of the weights, and of what is computed."""
        ...

    @property
    def base_model(self) -> Any:
        """Return the transformer without its unembedding."""
        ...

    def about(self) -> dict[str, str]:
        """Return which model this is, with the digest of its weights, for what is made with it."""
        ...

    def max_length(self) -> int:
        """Return the positions of the model, the beginning-of-sequence token included."""
        ...

    def network(self) -> Network:
        """Return the weights that contributions meet."""
        ...

    def unembedding(self) -> Unembedding:
        """Return the map from final hidden states to logits."""
        ...

    def attention_projections(self) -> list[tuple[Affine, Affine, Affine]]:
        """Return per layer the maps to queries, keys and values."""
        ...

    def modules_of(self, component: str) -> list[nn.Module]:
        """Return per block the module whose output its `attention` or `mlp` adds to the stream, or the block itself."""
        ...

    def neuron_modules(self) -> list[nn.Module]:
        """Return per block the module that is given the neurons of its MLP. ValueError where there are none."""
        ...

    def pre_activations(self) -> Sequence[Columns]:
        """Return per block what the activation of its MLP is given. ValueError where there are no neurons."""
        ...

    def neurons_shape(self) -> tuple[int, int]:
        """Return the number of layers, and of neurons in each. ValueError where there are none."""
        ...

    def folded(self, gate_rule: GateRule = ...) -> FoldedNetwork:
        """Return the network with its norms folded in, with what the gate rule needs of gated MLPs."""
        ...

    def token_embeddings(self) -> tuple[Float[Tensor, "V E"], Affine | None]:
        """Return the embedding matrix, and the map that brings it to the hidden width."""
        ...

    def default_baseline(self, positions: bool) -> str:
        """Return the baseline that integrated gradients converge from, `zero` or `mean`."""
        ...

    def until_weights_change(self, make: Callable[[Any], T]) -> T:
        """Return `make(model)`, made again only after a weight has changed."""
        ...

    def record(
        self,
        input_ids: Int[Tensor, " T"],
        position_ids: Int[Tensor, " T"] | None = ...,
        rules: Rules = ...,
        output_layers: bool = ...,
        embedding: Float[Tensor, "T D"] | None = ...,
    ) -> OperatingPoint:
        """Return everything that is frozen at one ordinary forward pass of one text, or of a changed embedding."""
        ...

    def hidden_without(
        self, input_ids: Int[Tensor, "B T"], removed: Bool[Tensor, "B T"] | None = ...
    ) -> Float[Tensor, "B T E"]:
        """Return final hidden states where no later position attends to what is removed; positions stay."""
        ...

    def after_attention(
        self, layer: int, inputs: Float[Tensor, "*rows D"], output: Float[Tensor, "*rows D"]
    ) -> Float[Tensor, "*rows D"]:
        """Return a block's output from its inputs and any output of its attention's own projection."""
        ...

    def read_out(self, hidden: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows E"]:
        """Return what the unembedding reads of the last block's output: after the final norm and projection."""
        ...

    def patched_logits(self, input_ids: Int[Tensor, "B T"], patch: Patch) -> Float[Tensor, "B V"]:
        """Return the logits at the last position of texts of one length, each stage of the pass handed to `patch`."""
        ...

    def weights_frozen(self) -> AbstractContextManager[None]:
        """Keep gradients off the weights, in evaluation mode, as long as this is open."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Keep other threads off the model as long as this is open."""
        ...
