"""The rules that carry contributions and bias through one frozen network (Oh & Schuler 2023, section 3).

Each rule is affine in the hidden state once its operating point is frozen. `affine=True` gives the
bias its constants (LayerNorm shifts, projection and MLP biases, activation intercepts); `affine=False`
is the linear part, which contributions follow. Shapes: B is dropped, every text stands alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from jaxtyping import Float
from torch import Tensor

ActivationRule = Literal["tangent", "secant"]
ACTIVATION_RULES: tuple[str, ...] = get_args(ActivationRule)

TARGET_BLOCK = 256
"""Targets whose attention rows are held at once."""


@dataclass(frozen=True)
class Affine:
    """`x @ weight + bias`."""

    weight: Float[Tensor, "inputs outputs"]
    bias: Float[Tensor, " outputs"] | None = None

    def __call__(self, x: Float[Tensor, "*rows inputs"], affine: bool) -> Float[Tensor, "*rows outputs"]:
        y = x @ self.weight
        return y + self.bias if affine and self.bias is not None else y


@dataclass(frozen=True)
class Norm:
    """A LayerNorm's own parameters; `centred=False` for RMSNorm."""

    weight: Float[Tensor, " D"] | None
    bias: Float[Tensor, " D"] | None
    eps: float
    centred: bool = True

    def inverse_std(self, hidden: Float[Tensor, "T D"]) -> Float[Tensor, " T"]:
        """1/σ of the undecomposed state, the one non-linear part; never in less than float32."""
        x = hidden if hidden.dtype == torch.float64 else hidden.float()
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        return (x.square().mean(-1) + self.eps).rsqrt().to(hidden.dtype)

    def __call__(
        self, x: Float[Tensor, "T *S D"], inverse_std: Float[Tensor, "T *S"], affine: bool
    ) -> Float[Tensor, "T *S D"]:
        """γ ⊙ (x − mean(x)) · inverse_std, and β for the bias."""
        return self.scale(self.standardise(x, inverse_std), affine)

    def standardise(self, x: Float[Tensor, "T *S D"], inverse_std: Float[Tensor, "T *S"]) -> Float[Tensor, "T *S D"]:
        """(x − mean(x)) · inverse_std."""
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        return x * inverse_std[..., None]

    def scale(self, x: Float[Tensor, "T *S D"], affine: bool) -> Float[Tensor, "T *S D"]:
        """γ ⊙ x, and β for the bias."""
        if self.weight is not None:
            x = x * self.weight
        return x + self.bias if affine and self.bias is not None else x

    def fold_into(self, weight: Float[Tensor, "D outputs"]) -> Float[Tensor, "D outputs"]:
        """The centring and γ as part of the map that follows: `Lin(x) @ weight = inverse_std · x @ folded`."""
        folded = weight if self.weight is None else self.weight[:, None] * weight
        return folded - folded.mean(0) if self.centred else folded


@dataclass(frozen=True)
class AttentionMaps:
    """Projections of all heads side by side. Attention weights are softmax(`scaling` · query · key)."""

    query: Affine
    key: Affine
    value: Affine
    output: Affine
    heads: int
    scaling: float


@dataclass(frozen=True)
class MLPMaps:
    up: Affine
    down: Affine


@dataclass(frozen=True)
class Sublayer:
    """`x ↦ norm_after(x + maps(norm_before(x)))`; either norm may be missing."""

    maps: AttentionMaps | MLPMaps
    norm_before: Norm | None
    norm_after: Norm | None


@dataclass(frozen=True)
class Network:
    """The weights that contributions meet, in order: blocks of sublayers, final norm, `project_out`."""

    blocks: tuple[tuple[Sublayer, ...], ...]
    final_norm: Norm | None
    project_out: Affine | None


class AttentionRows(Protocol):
    """Attention weights of the targets [first, last), as the model computed them."""

    def __call__(self, first: int, last: int) -> Float[Tensor, "H targets T"]: ...

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...


@dataclass(frozen=True)
class FrozenSublayer:
    """One sublayer's operating point on one text; `attention` or `slope` and `offset`, by its kind."""

    inverse_std_before: Float[Tensor, " T"] | None
    inverse_std_after: Float[Tensor, " T"] | None
    attention: AttentionRows | None = None
    slope: Float[Tensor, "T F"] | None = None
    offset: Float[Tensor, "T D"] | None = None
    standardised_before: Float[Tensor, "T D"] | None = None
    standardised_after: Float[Tensor, "T D"] | None = None
    """What the norms make of their inputs, before γ and β; kept for gradients alone."""


@dataclass(frozen=True)
class OperatingPoint:
    """All that is frozen at the values of one forward pass, and the states of that pass."""

    embedding: Float[Tensor, "T D"]
    blocks: tuple[tuple[FrozenSublayer, ...], ...]
    final_inverse_std: Float[Tensor, " T"] | None
    hidden_layers: tuple[Float[Tensor, "T D"], ...]
    """After the embedding and after each block; empty unless every layer was asked for."""
    hidden: Float[Tensor, "T E"]
    final_standardised: Float[Tensor, "T D"] | None = None

    def __len__(self) -> int:
        return len(self.embedding)


def activation_slope(activation: Callable[[Tensor], Tensor], a: Float[Tensor, "T F"]) -> Float[Tensor, "T F"]:
    """φ'(a)."""
    with torch.enable_grad():
        a = a.detach().requires_grad_()
        (slope,) = torch.autograd.grad(activation(a).sum(), a)
    return slope


def linearise(
    activation: Callable[[Tensor], Tensor], a: Float[Tensor, "T F"], rule: ActivationRule
) -> tuple[Float[Tensor, "T F"], Float[Tensor, "T F"]]:
    """Slope and intercept of φ at its inputs a: φ(a) = slope ⊙ a + intercept.

    `tangent`: slope φ'(a) (Oh & Schuler 2023). `secant`: the line through the origin, slope φ(a)/a
    (DecompX, Modarressi et al. 2023), which needs φ(0) = 0; ValueError otherwise.
    """
    if rule not in ACTIVATION_RULES:
        raise ValueError(f"unknown activation rule {rule!r}: choose one of {', '.join(ACTIVATION_RULES)}")
    value = activation(a).detach()
    tangent = activation_slope(activation, a)
    if rule == "tangent":
        return tangent, value - tangent * a
    at_zero = activation(a.new_zeros(1)).item()
    if at_zero != 0:
        raise ValueError(
            f"the secant rule needs an activation that is 0 at 0, this one is {at_zero:g}: use the tangent rule"
        )
    slope = torch.where(a == 0, tangent, value / torch.where(a == 0, 1, a))
    return slope, torch.zeros_like(slope)


def attend(
    x: Float[Tensor, "T D"], maps: AttentionMaps, attention: AttentionRows, affine: bool
) -> Float[Tensor, "T D"]:
    """Σ_h Σ_j A^h[i,j] · x[j] W_V^h W_O^h."""
    length = len(x)
    values = maps.value(x, affine).view(length, maps.heads, -1).transpose(0, 1)
    mixed = torch.cat([attention(i, min(i + TARGET_BLOCK, length)) @ values for i in range(0, length, TARGET_BLOCK)], 1)
    return maps.output(mixed.transpose(0, 1).reshape(length, -1), affine)


def transform(
    x: Float[Tensor, "T D"],
    maps: MLPMaps,
    slope: Float[Tensor, "T F"],
    offset: Float[Tensor, "T D"] | None,
    affine: bool,
) -> Float[Tensor, "T D"]:
    """W_2 (slope ⊙ W_1 x); the intercepts have been through W_2 already: `offset` holds them."""
    y = maps.down(slope * maps.up(x, affine), affine)
    return y + offset if affine and offset is not None else y


def sublayer_output(
    x: Float[Tensor, "T D"], sublayer: Sublayer, point: FrozenSublayer, affine: bool
) -> Float[Tensor, "T D"]:
    """What attention or MLP adds to the residual, one vector per target."""
    if sublayer.norm_before is not None:
        assert point.inverse_std_before is not None
        x = sublayer.norm_before(x, point.inverse_std_before, affine)
    if isinstance(sublayer.maps, AttentionMaps):
        assert point.attention is not None
        return attend(x, sublayer.maps, point.attention, affine)
    assert point.slope is not None
    return transform(x, sublayer.maps, point.slope, point.offset, affine)


def normalise_after(
    x: Float[Tensor, "T D"], sublayer: Sublayer, point: FrozenSublayer, affine: bool
) -> Float[Tensor, "T D"]:
    """The norm after residual and output were added, where there is one."""
    if sublayer.norm_after is None:
        return x
    assert point.inverse_std_after is not None
    return sublayer.norm_after(x, point.inverse_std_after, affine)


def apply_sublayer(
    x: Float[Tensor, "T D"], sublayer: Sublayer, point: FrozenSublayer, affine: bool
) -> Float[Tensor, "T D"]:
    """One vector per target through norm, attention or MLP, residual and norm."""
    return normalise_after(x + sublayer_output(x, sublayer, point, affine), sublayer, point, affine)


def finish(
    x: Float[Tensor, "T *S D"], network: Network, inverse_std: Float[Tensor, " T"] | None, affine: bool
) -> Float[Tensor, "T *S E"]:
    """The final norm and `project_out`."""
    if network.final_norm is not None:
        assert inverse_std is not None
        x = network.final_norm(x, inverse_std.view(-1, *[1] * (x.ndim - 2)).expand(x.shape[:-1]), affine)
    return x if network.project_out is None else network.project_out(x, affine)


def propagate_stream(
    x: Float[Tensor, "T D"], network: Network, point: OperatingPoint, affine: bool
) -> Iterator[Float[Tensor, "T D"]]:
    """One vector per target through the frozen network, rule by rule: after the embedding, each block, and at the end.

    Zero with `affine=True` gives the bias; the embedding with `affine=False` the sum over all sources.
    """
    yield x
    for block, frozen_block in zip(network.blocks, point.blocks, strict=True):
        for sublayer, frozen in zip(block, frozen_block, strict=True):
            x = apply_sublayer(x, sublayer, frozen, affine)
        yield x
    yield finish(x, network, point.final_inverse_std, affine)
