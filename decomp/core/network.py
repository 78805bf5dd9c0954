"""The weights that contributions meet, as data: blocks → stages → branches.

A stage reads one residual stream; each of its branches does `norm_out(operator(norm_in(x)))`, the sum is
added to the stream, and a stage may end in a norm. Shapes drop the batch: every text stands alone.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Affine:
    """`x @ weight + bias`."""

    weight: Float[Tensor, "inputs outputs"]
    bias: Float[Tensor, " outputs"] | None = None

    def __call__(self, x: Float[Tensor, "*rows inputs"], *, with_bias: bool) -> Float[Tensor, "*rows outputs"]:
        """Return the whole map of x, or without the bias its linear part."""
        y = x @ self.weight
        return y + self.bias if with_bias and self.bias is not None else y


@dataclass(frozen=True)
class Norm:
    """The parameters of a LayerNorm, or of an RMSNorm where `centred` is False."""

    weight: Float[Tensor, " D"] | None
    bias: Float[Tensor, " D"] | None
    eps: float
    centred: bool = True

    def inverse_std(self, hidden: Float[Tensor, "T D"]) -> Float[Tensor, " T"]:
        """Return 1/σ of undecomposed states, the one non-linear part; never computed in less than float32."""
        x = hidden if hidden.dtype == torch.float64 else hidden.float()
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        return (x.square().mean(-1) + self.eps).rsqrt().to(hidden.dtype)

    def standardise(self, x: Float[Tensor, "T *S D"], inverse_std: Float[Tensor, "T *S"]) -> Float[Tensor, "T *S D"]:
        """Return (x − mean(x)) · inverse_std, for an RMSNorm x · inverse_std."""
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        return x * inverse_std[..., None]

    def scale(self, x: Float[Tensor, "T *S D"], *, with_bias: bool) -> Float[Tensor, "T *S D"]:
        """Return γ ⊙ x, and with the bias γ ⊙ x + β."""
        if self.weight is not None:
            x = x * self.weight
        return x + self.bias if with_bias and self.bias is not None else x

    def transpose(self, g: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Return the transpose of x ↦ γ ⊙ (x − mean(x)) applied to g: ĝ − mean(ĝ) with ĝ = γ ⊙ g."""
        g = self.scale(g, with_bias=False)
        return g - g.mean(-1, keepdim=True) if self.centred else g

    def before(self, weight: Float[Tensor, "D outputs"]) -> Float[Tensor, "D outputs"]:
        """Return the map that follows, with this norm's linear part: `Lin(x) @ weight = inverse_std · x @ result`."""
        folded = weight if self.weight is None else self.weight[:, None] * weight
        return folded - folded.mean(0) if self.centred else folded

    def after(self, weight: Float[Tensor, "inputs D"]) -> Float[Tensor, "inputs D"]:
        """Return the map that precedes, with this norm's linear part: `Lin(x @ weight) = inverse_std · x @ result`."""
        folded = weight - weight.mean(1, keepdim=True) if self.centred else weight
        return folded if self.weight is None else folded * self.weight


@dataclass(frozen=True)
class Attention:
    """Value and output projections of all heads side by side; `kv_heads` of them have values of their own.

    Queries and keys only shape the attention weights, which are frozen.
    """

    value: Affine
    output: Affine
    heads: int
    kv_heads: int

    @property
    def width(self) -> int:
        """Return the width of all heads' mixed values together."""
        return len(self.output.weight)

    def without_gate(self) -> "Attention":
        """Return itself: attention has no gate."""
        return self

    @property
    def value_width(self) -> int:
        """Return the width of the values that heads do not share."""
        return self.value.weight.shape[1]

    @property
    def neurons(self) -> int:
        """Return 0: attention has no neurons."""
        return 0

    @property
    def inputs(self) -> tuple[Affine, ...]:
        """Return nothing: attention has no neurons that read the stream."""
        return ()

    @property
    def gathered(self) -> int:
        """Return 0: rows go through attention where they are."""
        return 0

    @property
    def hidden(self) -> int:
        """Return the width of the residual stream."""
        return len(self.value.weight)


@dataclass(frozen=True)
class MLP:
    """`Σ_p slope_p ⊙ (x @ W_p)` into one output projection: one input of a plain MLP; up, then gate of a gated one."""

    inputs: tuple[Affine, ...]
    output: Affine

    def without_gate(self) -> "MLP":
        """Return the MLP with its first input alone."""
        return replace(self, inputs=self.inputs[:1])

    @property
    def neurons(self) -> int:
        """Return the inner width."""
        return len(self.output.weight)

    @property
    def heads(self) -> int:
        """Return 0: an MLP has no heads."""
        return 0

    @property
    def width(self) -> int:
        """Return 0: an MLP has no values of heads."""
        return 0

    @property
    def value_width(self) -> int:
        """Return 0: an MLP has no values of heads."""
        return 0

    @property
    def hidden(self) -> int:
        """Return the width of the residual stream."""
        return self.output.weight.shape[1]

    @property
    def gathered(self) -> int:
        """Return 0: rows go through an MLP where they are."""
        return 0


@dataclass(frozen=True)
class Mixture:
    """Experts of which every position visits a few, `Σ_e w_e · expert_e(x)`; the router, which gives w, is frozen.

    Rows meet one expert after the other, so its widths are those of a single one.
    """

    experts: tuple[MLP, ...]

    heads = width = value_width = 0

    def without_gate(self) -> "Mixture":
        """Return the mixture of the same experts with their first inputs alone."""
        return Mixture(tuple(expert.without_gate() for expert in self.experts))

    @property
    def inputs(self) -> tuple[Affine, ...]:
        """Return the first expert's inputs: all have as many."""
        return self.experts[0].inputs

    @property
    def neurons(self) -> int:
        """Return the inner width of one expert."""
        return self.experts[0].neurons

    @property
    def hidden(self) -> int:
        """Return the width of the residual stream."""
        return self.experts[0].hidden

    @property
    def gathered(self) -> int:
        """Return how many numbers are copied for each row on its way through an expert: input, outputs, slopes."""
        return 3 * self.hidden + self.neurons


@dataclass(frozen=True)
class Branch:
    """`norm_out(operator(norm_in(x)))`; either norm may be missing."""

    operator: Attention | MLP | Mixture
    norm_in: Norm | None = None
    norm_out: Norm | None = None


@dataclass(frozen=True)
class Stage:
    """`norm(x + Σ branch(x))`; the norm may be missing. ValueError for several MLPs side by side."""

    branches: tuple[Branch, ...]
    norm: Norm | None = None

    def __post_init__(self) -> None:
        if sum(branch.operator.neurons > 0 for branch in self.branches) > 1:
            raise ValueError("several MLPs that read the same stream are not supported: make them one")


@dataclass(frozen=True)
class Network:
    """All blocks in order, the final norm, and the projection from the hidden width to the unembedding's."""

    blocks: tuple[tuple[Stage, ...], ...]
    final_norm: Norm | None
    project_out: Affine | None

    def without_gates(self) -> "Network":
        """Return the network whose gated MLPs are left with the input that their gates multiply."""

        def ungated(branch: Branch) -> Branch:
            return replace(branch, operator=branch.operator.without_gate())

        return replace(
            self,
            blocks=tuple(
                tuple(replace(stage, branches=tuple(map(ungated, stage.branches))) for stage in block)
                for block in self.blocks
            ),
        )

    @property
    def operators(self) -> list[Attention | MLP | Mixture]:
        """Return every attention, MLP and mixture of experts, in network order."""
        return [branch.operator for block in self.blocks for stage in block for branch in stage.branches]

    @property
    def heads(self) -> int:
        """Return the largest number of attention heads of a layer."""
        return max(operator.heads for operator in self.operators)

    @property
    def width(self) -> int:
        """Return the largest width of a layer's values."""
        return max(operator.width for operator in self.operators)

    @property
    def value_width(self) -> int:
        """Return the largest width of a layer's values that heads do not share."""
        return max(operator.value_width for operator in self.operators)

    @property
    def neurons(self) -> int:
        """Return the largest inner width of an MLP."""
        return max(operator.neurons for operator in self.operators)

    @property
    def gathered(self) -> int:
        """Return how many numbers are copied for a row at most on its way through a mixture of experts."""
        return max(operator.gathered for operator in self.operators)

    @property
    def hidden(self) -> int:
        """Return the width of the residual stream."""
        return self.operators[0].hidden

    @property
    def inputs(self) -> int:
        """Return how many inputs its MLPs have at most: 1, or 2 of gated ones."""
        return max(len(operator.inputs) for operator in self.operators)
