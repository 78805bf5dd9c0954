"""An MLP frozen at one text: its activations and gates are slopes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.network import MLP
from decomp.core.readout_rows import ReadoutRows


@dataclass(frozen=True)
class FrozenMLP:
    """An MLP with the slopes of one forward pass, one for each of its inputs that the rules give a share."""

    mlp: MLP
    slopes: tuple[Float[Tensor, "T F"], ...]
    offset: Float[Tensor, "T D"] | None = None
    """What the activations' intercepts add to the output."""
    derivatives: tuple[Float[Tensor, "T F"], ...] = ()
    """The real derivatives for each input; kept where gradients are wanted."""

    mixes_positions = False

    def carry(self, x: Float[Tensor, "T D"], *, with_bias: bool) -> Float[Tensor, "T D"]:
        """Return (Σ_p slope_p ⊙ x W_p) W_out, one vector per target; with the biases and intercepts or without."""
        pairs = zip(self.mlp.inputs, self.slopes, strict=False)
        neurons = sum_of([slope * weights(x, with_bias=with_bias) for weights, slope in pairs])
        y = self.mlp.output(neurons, with_bias=with_bias)
        return y + self.offset if with_bias and self.offset is not None else y

    def pull(self, g: Float[Tensor, "rows D"], at: ReadoutRows) -> Float[Tensor, "rows D"]:
        """Return what readouts g of the output read of the input: Σ_p ((g W_outᵀ) ⊙ slope_p) W_pᵀ."""
        return self.through_neurons(g, at, self.slopes)

    def differentiate(
        self, g: Float[Tensor, "rows D"], at: ReadoutRows, x: Float[Tensor, "T D"]
    ) -> Float[Tensor, "rows D"]:
        """Return gradients with respect to the real input, by the real derivatives of activation and gate."""
        return self.through_neurons(g, at, self.derivatives)

    def through_neurons(
        self, g: Float[Tensor, "rows D"], at: ReadoutRows, slopes: Sequence[Float[Tensor, "T F"]]
    ) -> Float[Tensor, "rows D"]:
        """Return the transpose of the map with these slopes."""
        to_neurons = g @ self.mlp.output.weight.T
        parts = []
        for number, (weights, slope) in enumerate(zip(self.mlp.inputs, slopes, strict=False), 1):
            own = to_neurons if number == len(slopes) else to_neurons.clone()
            parts.append(at.scale_(own, slope) @ weights.weight.T)
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
