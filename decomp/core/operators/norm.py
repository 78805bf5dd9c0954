"""A norm frozen at the states of one text: 1/σ of each position is a constant."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.network import Norm
from decomp.core.readout_rows import ReadoutRows


@dataclass(frozen=True)
class FrozenNorm:
    """A norm with the 1/σ of every position, and for gradients the standardised states."""

    norm: Norm
    inverse_std: Float[Tensor, " T"]
    standardised: Float[Tensor, "T D"] | None = None
    """(x − mean(x)) / σ of the real states x; kept where gradients are wanted."""

    def carry(self, x: Float[Tensor, "T D"], *, with_bias: bool) -> Float[Tensor, "T D"]:
        """Return γ ⊙ (x − mean(x)) · inverse_std, one vector per position, and with the bias β added."""
        return self.norm.scale(self.norm.standardise(x, self.inverse_std), with_bias=with_bias)

    def pull(self, g: Float[Tensor, "rows D"], at: ReadoutRows) -> Float[Tensor, "rows D"]:
        """Return what the readouts g of the norm's output read of its input, 1/σ being constant."""
        return self.norm.transpose(g) * at.of_positions(self.inverse_std)[:, None]

    def differentiate(self, g: Float[Tensor, "rows D"], at: ReadoutRows) -> Float[Tensor, "rows D"]:
        """Return gradients with respect to the norm's real input: (ĝ − mean(ĝ) − x̂ · mean(ĝ ⊙ x̂)) / σ, ĝ = γ ⊙ g."""
        assert self.standardised is not None
        g, x = self.norm.transpose(g), at.of_positions(self.standardised)
        g = torch.addcmul(g, x, (g * x).mean(-1, keepdim=True), value=-1)
        return g.mul_(at.of_positions(self.inverse_std)[:, None])

    @property
    def nbytes(self) -> int:
        """Return the bytes held beside the model's own weights."""
        return sum(t.numel() * t.element_size() for t in (self.inverse_std, self.standardised) if t is not None)
