"""Where an architecture keeps what the rules need: its own words for norms, attention and MLP."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from decomp.core.rules import Affine, AttentionMaps, MLPMaps, Norm, Sublayer


@dataclass(frozen=True)
class Projection:
    """A map that some columns of a module's output hold."""

    module: nn.Module
    columns: slice = field(default_factory=lambda: slice(None))

    def affine(self) -> Affine:
        joint = affine(self.module)
        return Affine(joint.weight[:, self.columns], None if joint.bias is None else joint.bias[self.columns])


@dataclass(frozen=True)
class AttentionSite:
    """Where one self-attention keeps its weights; `module` has an `eager_attention`."""

    module: Any
    query: Projection
    key: Projection
    value: Projection
    output: nn.Module
    heads: int
    scaling: float
    """Of query · key."""

    @property
    def last(self) -> nn.Module:
        """The module whose (first) output is the sublayer's."""
        return self.module


@dataclass(frozen=True)
class MLPSite:
    """Where one MLP keeps its weights; `up` gives the pre-activations, `down` is given the neurons."""

    up: nn.Module
    down: nn.Module
    activation: Callable[[Tensor], Tensor]

    def __call__(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        return self.down(self.activation(self.up(x)))

    @property
    def last(self) -> nn.Module:
        return self.down


@dataclass(frozen=True)
class Site:
    """One sublayer as an architecture describes it."""

    body: AttentionSite | MLPSite
    norm_before: nn.Module | None
    norm_after: nn.Module | None

    def finish(self, residual_and_output: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """The norm after, in earnest: with the σ of what it is given."""
        return residual_and_output if self.norm_after is None else self.norm_after(residual_and_output)

    def run(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """An MLP sublayer in earnest, with the activations of what it is given."""
        assert isinstance(self.body, MLPSite)
        return self.finish(x + self.body(x if self.norm_before is None else self.norm_before(x)))

    def sublayer(self) -> Sublayer:
        body = self.body
        maps: AttentionMaps | MLPMaps
        if isinstance(body, AttentionSite):
            maps = AttentionMaps(
                body.query.affine(),
                body.key.affine(),
                body.value.affine(),
                affine(body.output),
                body.heads,
                body.scaling,
            )
        else:
            maps = MLPMaps(affine(body.up), affine(body.down))
        return Sublayer(maps, norm(self.norm_before), norm(self.norm_after))


def affine(module: nn.Module) -> Affine:
    """The map of a Linear (weights transposed, a view) or a Conv1D."""
    if not isinstance(module, nn.Linear | Conv1D):
        raise TypeError(f"expected a Linear or Conv1D, got {type(module).__name__}")
    weight = module.weight.T if isinstance(module, nn.Linear) else module.weight
    return Affine(weight.detach(), None if module.bias is None else module.bias.detach())


def norm(module: nn.Module | None) -> Norm | None:
    """The parameters of a LayerNorm."""
    if module is None:
        return None
    if not isinstance(module, nn.LayerNorm):
        raise TypeError(f"expected a LayerNorm, got {type(module).__name__}")
    weight, bias = module.weight, module.bias
    return Norm(None if weight is None else weight.detach(), None if bias is None else bias.detach(), float(module.eps))
