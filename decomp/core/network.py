"""The weights that contributions pass through, as data: blocks, their stages, and the stages' branches.

A stage reads one residual stream; each of its branches does `norm_out(operator(norm_in(x)))`, the sum is
added to the stream, and a stage may end in a norm. Shapes drop the batch: every text stands alone.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Affine:
    """A linear map with a bias, `x @ weight + bias`."""

    weight: Float[Tensor, "inputs outputs"]
    bias: Float[Tensor, " outputs"] | None = None

    def __call__(self, x: Float[Tensor, "*rows inputs"], *, with_bias: bool) -> Float[Tensor, "*rows outputs"]:
        """Return `x @ weight`, and with the bias `x @ weight + bias`."""
        y = x @ self.weight
        return y + self.bias if with_bias and self.bias is not None else y


@dataclass(frozen=True)
class Norm:
    """The parameters γ and β of a LayerNorm, or γ of an RMSNorm, for which `centred` is False."""

    weight: Float[Tensor, " D"] | None
    """γ; None for a norm that does not scale."""
    bias: Float[Tensor, " D"] | None
    """β; None for a norm that does not shift."""
    eps: float
    """The number added to the variance, or to the mean square of an RMSNorm."""
    centred: bool = True
    """Whether the mean is subtracted: True for a LayerNorm, False for an RMSNorm."""

    def inverse_std(self, hidden: Float[Tensor, "T D"]) -> Float[Tensor, " T"]:
        """Return 1/σ of each hidden state, the norm's only non-linear part; computed in float32 at least."""
        x = hidden if hidden.dtype == torch.float64 else hidden.float()
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        return (x.square().mean(-1) + self.eps).rsqrt().to(hidden.dtype)

    def standardise(self, x: Float[Tensor, "T *S D"], inverse_std: Float[Tensor, "T *S"]) -> Float[Tensor, "T *S D"]:
        """Return (x − mean(x)) · inverse_std of a LayerNorm, x · inverse_std of an RMSNorm."""
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
    """An attention layer's value and output projections, all heads side by side.

    With grouped queries, the heads share `kv_heads` sets of values. Queries and keys are left out: they only make the
    attention weights, which are frozen.
    """

    value: Affine
    """The map from the input to the values of all heads, side by side."""
    output: Affine
    """The map from the mixed values of all heads to the output."""
    heads: int
    """The number of heads."""
    kv_heads: int
    """The number of different values, which groups of heads share."""

    @property
    def width(self) -> int:
        """Return the width of the mixed values of all heads together."""
        return len(self.output.weight)

    def without_gate(self) -> "Attention":
        """Return itself: attention has no gate."""
        return self

    @property
    def value_width(self) -> int:
        """Return the width of the values before heads share them."""
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
    """An MLP's projections: `(Σ_p slope_p ⊙ (x @ W_p)) @ W_out`, with one slope for each input projection W_p.

    A plain MLP has one input projection; a gated MLP has two, first `up`, then `gate`.
    """

    inputs: tuple[Affine, ...]
    """The input projections: one of a plain MLP; `up`, then `gate` of a gated one."""
    output: Affine
    """The map from the neurons to the output."""

    def without_gate(self) -> "MLP":
        """Return the MLP with its first input projection alone."""
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
    """A mixture of experts, `Σ_e w_e · expert_e(x)` over the few experts e that a position is routed to.

    The router, which gives the weights w, is frozen. Widths are those of a single expert, since rows go through one
    expert after the other.
    """

    experts: tuple[MLP, ...]

    heads = width = value_width = 0

    def without_gate(self) -> "Mixture":
        """Return the mixture whose experts have their first input projections alone."""
        return Mixture(tuple(expert.without_gate() for expert in self.experts))

    @property
    def inputs(self) -> tuple[Affine, ...]:
        """Return the input projections of the first expert; all experts have as many."""
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
        """Return how many numbers are copied for each row that goes through an expert: input, outputs, slopes."""
        return 3 * self.hidden + self.neurons


@dataclass(frozen=True)
class Branch:
    """One attention, MLP or mixture with its norms, `norm_out(operator(norm_in(x)))`; either norm may be missing."""

    operator: Attention | MLP | Mixture
    norm_in: Norm | None = None
    norm_out: Norm | None = None


@dataclass(frozen=True)
class Stage:
    """One step of the residual stream, `norm(x + Σ branch(x))`; the norm may be missing.

    ValueError for a stage with several MLPs side by side.
    """

    branches: tuple[Branch, ...]
    norm: Norm | None = None

    def __post_init__(self) -> None:
        if sum(branch.operator.neurons > 0 for branch in self.branches) > 1:
            raise ValueError("several MLPs that read the same stream are not supported: make them one")


@dataclass(frozen=True)
class Network:
    """A whole network: its blocks in order, the final norm, and the projection to the unembedding's width, if any."""

    blocks: tuple[tuple[Stage, ...], ...]
    final_norm: Norm | None
    project_out: Affine | None

    def without_gates(self) -> "Network":
        """Return the network whose gated MLPs have only the input projection `up`, which their gates multiply."""

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
        """Return the largest width of a layer's mixed values, all heads together."""
        return max(operator.width for operator in self.operators)

    @property
    def value_width(self) -> int:
        """Return the largest width of a layer's values before heads share them."""
        return max(operator.value_width for operator in self.operators)

    @property
    def neurons(self) -> int:
        """Return the largest inner width of an MLP."""
        return max(operator.neurons for operator in self.operators)

    @property
    def gathered(self) -> int:
        """Return the largest number of numbers copied for a row that goes through a mixture of experts."""
        return max(operator.gathered for operator in self.operators)

    @property
    def hidden(self) -> int:
        """Return the width of the residual stream."""
        return self.operators[0].hidden

    @property
    def inputs(self) -> int:
        """Return the largest number of input projections of an MLP: 1 of plain ones, 2 of gated ones."""
        return max(len(operator.inputs) for operator in self.operators)
