"""The interface of a model: what measures, layers, neurons and edges use of it, whatever its architecture."""

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
    """An intervention in a forward pass: methods that are called with its values, in order, and may replace them.

    Stages are counted from 0: every attention and MLP, each norm that follows a residual sum, and last the logits.
    """

    def embedding(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return the value that replaces `hidden`, the input of the first block."""
        ...

    def input(self, stage: int, stream: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return the value that replaces `stream`, a stage's input before its norm; may be called again."""
        ...

    def projected(self, stage: int, kind: int, output: Float[Tensor, "B T HV"]) -> Float[Tensor, "B T HV"]:
        """Return the value that replaces `output`: an attention's queries (kind 0), keys (1) or values (2)."""
        ...

    def output(self, stage: int, value: Float[Tensor, "B T _"]) -> None:
        """Take the output of a stage; of an attention, the mixed values that its output projection reads."""
        ...


class Columns(Protocol):
    """A part of a module's output: some of its columns."""

    @property
    def module(self) -> nn.Module:
        """Return the module whose output holds the columns."""
        ...

    @property
    def columns(self) -> "slice | Int[Tensor, ' outputs']":
        """Return the columns of the module's output, as a slice or as their numbers."""
        ...


class Model(Protocol):
    """A causal language model with access to its inside; `decomp.models` has a class for every architecture."""

    @property
    def config(self) -> Any:
        """Return the model's configuration, as the library `transformers` has it."""
        ...

    @property
    def device(self) -> torch.device:
        """Return the device that the weights are on."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision of the weights and of all that is computed."""
        ...

    @property
    def base_model(self) -> Any:
        """Return the transformer without its unembedding."""
        ...

    def about(self) -> dict[str, str]:
        """Return the model's name, revision and digest of weights, which files made with it carry."""
        ...

    def max_length(self) -> int:
        """Return the largest number of tokens of a text, the beginning-of-sequence token included."""
        ...

    def network(self) -> Network:
        """Return the weights that contributions pass through, as data."""
        ...

    def unembedding(self) -> Unembedding:
        """Return the language-model head, which maps final hidden states to logits."""
        ...

    def attention_projections(self) -> list[tuple[Affine, Affine, Affine]]:
        """Return for each layer the maps from the attention's input to queries, keys and values."""
        ...

    def modules_of(self, component: str) -> list[nn.Module]:
        """Return one module of each block: that of its `attention` or `mlp` with the output added to the stream.

        For the component `residual` it is the block itself.
        """
        ...

    def neuron_modules(self) -> list[nn.Module]:
        """Return of each block the module whose input is the MLP's neurons. ValueError for a model without neurons."""
        ...

    def pre_activations(self) -> Sequence[Columns]:
        """Return of each block the inputs of the MLP's activation function. ValueError for a model without neurons."""
        ...

    def neurons_shape(self) -> tuple[int, int]:
        """Return the number of layers and that of neurons in each. ValueError for a model without neurons."""
        ...

    def folded(self, gate_rule: GateRule = ...) -> FoldedNetwork:
        """Return the network with its norms folded in; of gated MLPs, the inputs that the gate rule gives a share."""
        ...

    def token_embeddings(self) -> tuple[Float[Tensor, "V E"], Affine | None]:
        """Return the embedding matrix, and the map from its width to the hidden width (None where they are equal)."""
        ...

    def default_baseline(self, positions: bool) -> str:
        """Return the baseline from which integrated gradients converge, `zero` or `mean`.

        `positions`: whether the embeddings of positions are part of what is integrated over.
        """
        ...

    def until_weights_change(self, make: Callable[[Any], T]) -> T:
        """Return `make(model)`, computed once and again only after a weight has changed."""
        ...

    def record(
        self,
        input_ids: Int[Tensor, " T"],
        position_ids: Int[Tensor, " T"] | None = ...,
        rules: Rules = ...,
        output_layers: bool = ...,
        embedding: Float[Tensor, "T D"] | None = ...,
        bias: bool = ...,
    ) -> OperatingPoint:
        """Return the operating point of one text: all that is frozen at its forward pass.

        With an `embedding`, the pass starts from it in place of the tokens' own. Without `bias`, the intercepts of
        activations are not kept: the bias alone needs them.
        """
        ...

    def hidden_without(
        self, input_ids: Int[Tensor, "B T"], removed: Bool[Tensor, "B T"] | None = ...
    ) -> Float[Tensor, "B T E"]:
        """Return final hidden states where no later position attends to the removed ones; position numbers stay."""
        ...

    def after_attention(
        self, layer: int, inputs: Float[Tensor, "*rows D"], output: Float[Tensor, "*rows D"]
    ) -> Float[Tensor, "*rows D"]:
        """Return a block's output, computed from its input and a given output of its attention."""
        ...

    def read_out(self, hidden: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows E"]:
        """Return the last block's output after the final norm and projection, which the unembedding reads."""
        ...

    def patched_logits(self, input_ids: Int[Tensor, "B T"], patch: Patch) -> Float[Tensor, "B V"]:
        """Return the logits at the last position of texts of one length; `patch` may change the pass."""
        ...

    def weights_frozen(self) -> AbstractContextManager[None]:
        """Keep the weights without gradients and the model in evaluation mode, as long as the context is open."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Keep other threads from using the model as long as the context is open."""
        ...
