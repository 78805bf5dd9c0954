"""A norm frozen at one text: 1/σ of each position is a constant, so that the output is linear in the input."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.network import Norm
from decomp.core.readout_rows import BiasShares, ReadoutRows


@dataclass(frozen=True)
class FrozenNorm:
    """A LayerNorm or RMSNorm with the 1/σ of every position of one text's forward pass."""

    norm: Norm
    inverse_std: Float[Tensor, " T"]
    standardised: Float[Tensor, "T D"] | None = None
    """The standardised states (x − mean(x)) / σ of the real input x; None unless recorded for gradients."""

    def carry(self, x: Float[Tensor, "T D"], *, with_bias: bool) -> Float[Tensor, "T D"]:
        """Return γ ⊙ (x − mean(x)) · inverse_std at every position, and with the bias β added."""
        return self.norm.scale(self.norm.standardise(x, self.inverse_std), with_bias=with_bias)

    def pull(
        self, g: Float[Tensor, "rows D"], at: ReadoutRows, shares: BiasShares | None = None
    ) -> Float[Tensor, "rows D"]:
        """Return readouts g of the norm's output turned into readouts of its input, with 1/σ as a constant."""
        if shares is not None:
            shares.add(g, self.norm.bias, at)
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
