"""The base class of supported architectures: one method describes its blocks, all others are derived from that."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel

import decomp
from decomp.core.ablation import Unembedding
from decomp.core.folding import FoldedNetwork
from decomp.core.network import Affine, Network
from decomp.core.rules import GateRule
from decomp.models.running import alone, exclusive, running
from decomp.models.sites import AttentionSite, BranchSite, MLPSite, Projection, StageSite, affine, norm

T = TypeVar("T")


def model_label(name: str) -> str:
    """Return the last part of a model's name, which is part of file names: `gpt2` of `openai-community/gpt2`."""
    return Path(name).resolve().name if Path(name).is_dir() else name.rstrip("/").rsplit("/", 1)[-1]


def network_of(model: "Architecture") -> Network:
    """Return a model's weights as data."""
    return Network(
        tuple(tuple(site.stage() for site in block) for block in model.sites()),
        norm(model.final_norm()),
        None if (project_out := model.project_out()) is None else affine(project_out),
    )


def fold_network(model: "Architecture") -> FoldedNetwork:
    """Return the folded network for the gate rule `frozen`, under which gates carry no contributions."""
    return FoldedNetwork(model.network().without_gates())


def fold_with_gates(model: "Architecture") -> FoldedNetwork:
    """Return the folded network for the gate rule `half`, under which gates carry contributions, too."""
    return FoldedNetwork(model.network())


def weights_digest(model: "Architecture") -> str:
    """Return a shortened SHA-256 of all parameters, by which files made with the model are recognised."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


class Architecture(PreTrainedModel):
    """A causal language model whose method `stages` says where each block keeps its weights."""

    unsupported: ClassVar[dict[str, str]] = {}
    """The features that this architecture does not support, each with the reason, by name."""

    adds_positions: ClassVar[bool] = False
    """Whether the embeddings of positions are added to those of tokens."""

    blocks_at: ClassVar[str] = "layers"
    final_norm_at: ClassVar[str] = "norm"
    """The attributes of the base model that hold its blocks, and the norm after the last block."""

    weights_note: str = ""
    """A remark on what was done to the weights when they were loaded (`dequantised from GGUF`)."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Mixins that several families share have no forward method yet.
        if issubclass(cls, GenerationMixin):
            cls.forward = alone(cls.forward)

    def stages(self, block: Any) -> tuple[StageSite, ...]:
        """Return the stages of one block, which say where it keeps its weights."""
        raise NotImplementedError

    def blocks(self) -> Sequence[Any]:
        """Return the blocks in order."""
        return list(attrgetter(self.blocks_at)(self.base_model))

    def final_norm(self) -> nn.Module | None:
        """Return the norm after the last block; None where there is none."""
        norm: nn.Module | None = attrgetter(self.final_norm_at)(self.base_model)
        return norm

    def project_in(self) -> nn.Module | None:
        """Return the map from the width of token embeddings to the hidden width; None where there is none."""
        return None

    def project_out(self) -> nn.Module | None:
        """Return the map from the hidden width to that of the unembedding; None where there is none."""
        return None

    def require(self, feature: str) -> None:
        """Raise ValueError, with the architecture's own reason, for a feature that it does not support."""
        if feature in self.unsupported:
            raise ValueError(f"{self.config.model_type} models don't support {feature}: {self.unsupported[feature]}")

    def token_embeddings(self) -> tuple[Float[Tensor, "V E"], Affine | None]:
        """Return the embedding matrix, and the map from its width to the hidden width (None where they are equal)."""
        project_in = self.project_in()
        return self.get_input_embeddings().weight.detach(), None if project_in is None else affine(project_in)

    def default_baseline(self, positions: bool) -> str:
        """Return the baseline from which integrated gradients converge, `zero` or `mean`.

        `positions`: whether the embeddings of positions are integrated over, too. The baseline is `zero` where
        positions are added to it and remain, else `mean`: a norm maps all multiples of a state, however small, to the
        same, so that a path to zero ends in a leap.
        """
        return "zero" if self.adds_positions and not positions else "mean"

    def max_length(self) -> int:
        """Return the largest number of tokens of a text, the beginning-of-sequence token included."""
        return int(self.config.max_position_embeddings)

    def sites(self) -> list[tuple[StageSite, ...]]:
        """Return the stages of every block, which say where it keeps its weights."""
        return [self.stages(block) for block in self.blocks()]

    def branch_sites(self) -> list[BranchSite]:
        """Return every attention and MLP of the model with its norms, in network order."""
        return [branch for block in self.sites() for stage in block for branch in stage.branches]

    def network(self) -> Network:
        """Return the weights that contributions pass through, as data: views of the model's own where possible."""
        return self.until_weights_change(network_of)

    def modules_of(self, component: str) -> list[nn.Module]:
        """Return one module of each block: that of its `attention` or `mlp` with the output added to the stream.

        For the component `residual` it is the block itself.
        """
        if component == "residual":
            return list(self.blocks())
        return [site.last for site in self.branch_sites() if site.body.kind == component]

    def neuron_modules(self) -> list[nn.Module]:
        """Return of each block the module whose input is the MLP's neurons, after activation and gate."""
        self.require("neurons")
        return [site.body.last for site in self.branch_sites() if site.body.kind == "mlp"]

    def pre_activations(self) -> list[Projection]:
        """Return of each block the inputs of the MLP's activation function, as columns of a module's output."""
        self.require("neurons")
        bodies = [site.body for site in self.branch_sites()]
        return [body.up if body.gate is None else body.gate for body in bodies if isinstance(body, MLPSite)]

    def neurons_shape(self) -> tuple[int, int]:
        """Return the number of layers and that of neurons in each."""
        downs = self.neuron_modules()
        return len(downs), affine(downs[0]).weight.shape[0]

    def attention_projections(self) -> list[tuple[Affine, Affine, Affine]]:
        """Return for each layer the maps from the attention's input to queries, keys and values."""
        return [site.body.projections() for site in self.branch_sites() if isinstance(site.body, AttentionSite)]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other threads from using the model, which is in evaluation mode and its own precision meanwhile."""
        with running(self, self.config._attn_implementation):
            yield

    @contextmanager
    def weights_frozen(self) -> Iterator[None]:
        """Keep other threads from using the model, whose weights have no gradients meanwhile."""
        with self.alone():
            trained = [p for p in self.parameters() if p.requires_grad]
            try:
                for parameter in trained:
                    parameter.requires_grad_(False)
                yield
            finally:
                for parameter in trained:
                    parameter.requires_grad_(True)

    def until_weights_change(self, make: Callable[["Architecture"], T]) -> T:
        """Return `make(self)`, computed once and again only after a weight has changed."""
        with exclusive(self):
            key = tuple((p.data_ptr(), p._version, p.dtype, p.device) for p in self.parameters())
            kept = self.__dict__.setdefault("_kept", {})
            if make not in kept or kept[make][0] != key:
                kept[make] = (key, make(self))
            return kept[make][1]

    def folded(self, gate_rule: GateRule = "half") -> FoldedNetwork:
        """Return the network with its norms folded in; of gated MLPs, the inputs that the gate rule gives a share."""
        return self.until_weights_change(fold_network if gate_rule == "frozen" else fold_with_gates)

    def about(self) -> dict[str, str]:
        """Return the model's name, revision and digest of weights, which files made with it carry."""
        return {
            "version": decomp.__version__,
            "model": model_label(self.name_or_path or self.config.model_type),
            "revision": getattr(self.config, "_commit_hash", None) or "",
            "weights": self.until_weights_change(weights_digest),
            **({"weights_note": self.weights_note} if self.weights_note else {}),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def unembedding(self) -> Unembedding:
        """Return the language-model head, with the soft-cap of its logits where the config has one."""
        head = self.get_output_embeddings()
        assert isinstance(head, nn.Linear)
        softcap = getattr(self.config, "final_logit_softcapping", None)
        return Unembedding(head.weight.detach(), None if head.bias is None else head.bias.detach(), softcap)
