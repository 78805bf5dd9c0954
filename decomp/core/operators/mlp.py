"""An MLP frozen at one text: activations and gates are slopes, so that the output is linear in the input."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.network import MLP
from decomp.core.readout_rows import BiasShares, ReadoutRows


@dataclass(frozen=True)
class FrozenMLP:
    """An MLP with the slopes of one text's forward pass, for each input projection that the rules give a share."""

    mlp: MLP
    slopes: tuple[Float[Tensor, "T F"], ...]
    offset: Float[Tensor, "T D"] | None = None
    """The activations' intercepts after the output projection; None where they are zero."""
    derivatives: tuple[Float[Tensor, "T F"], ...] = ()
    """The derivatives with respect to each input projection's output; empty unless recorded for gradients."""

    mixes_positions = False

    def carry(self, x: Float[Tensor, "T D"], *, with_bias: bool) -> Float[Tensor, "T D"]:
        """Return (Σ_p slope_p ⊙ x W_p) W_out at every position, with biases and intercepts or without."""
        pairs = zip(self.mlp.inputs, self.slopes, strict=False)
        neurons = sum_of([slope * weights(x, with_bias=with_bias) for weights, slope in pairs])
        y = self.mlp.output(neurons, with_bias=with_bias)
        return y + self.offset if with_bias and self.offset is not None else y

    def pull(
        self, g: Float[Tensor, "rows D"], at: ReadoutRows, shares: BiasShares | None = None
    ) -> Float[Tensor, "rows D"]:
        """Return readouts g of the output turned into readouts of the input, Σ_p ((g W_outᵀ) ⊙ slope_p) W_pᵀ."""
        if shares is not None:
            shares.add(g, self.mlp.output.bias, at)
            shares.add(g, self.offset, at)
        return self.through_neurons(g, at, self.slopes, shares)

    def differentiate(
        self, g: Float[Tensor, "rows D"], at: ReadoutRows, x: Float[Tensor, "T D"]
    ) -> Float[Tensor, "rows D"]:
        """Return gradients with respect to the real input, by the derivatives of activation and gate."""
        return self.through_neurons(g, at, self.derivatives)

    def through_neurons(
        self,
        g: Float[Tensor, "rows D"],
        at: ReadoutRows,
        slopes: Sequence[Float[Tensor, "T F"]],
        shares: BiasShares | None = None,
    ) -> Float[Tensor, "rows D"]:
        """Return readouts g of the output turned into readouts of the input, for neurons with the given slopes."""
        to_neurons = g @ self.mlp.output.weight.T
        parts = []
        for number, (weights, slope) in enumerate(zip(self.mlp.inputs, slopes, strict=False), 1):
            own = at.scale_(to_neurons if number == len(slopes) else to_neurons.clone(), slope)
            if shares is not None:
                shares.add(own, weights.bias, at)
            parts.append(own @ weights.weight.T)
        return sum_of(parts)

    def holding_rows(self, length: int) -> "FrozenMLP":
        """Return itself: an MLP has no attention weights to hold."""
        return self

    @property
    def nbytes(self) -> int:
        """Return the bytes held beside the model's own weights."""
        held = (*self.slopes, *self.derivatives, *([] if self.offset is None else [self.offset]))
        return sum(t.numel() * t.element_size() for t in held)


def sum_of(parts: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape."""
    total, *rest = parts
    for part in rest:
        total = torch.add(total, part)
    return total
