"""A mixture of experts frozen at one text: which experts each position visits, and their weights, are constants."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.network import Mixture
from decomp.core.operators.mlp import FrozenMLP
from decomp.core.readout_rows import BiasShares, ReadoutRows

Back = Callable[[FrozenMLP, Float[Tensor, "n D"], ReadoutRows, Int[Tensor, " n"]], Float[Tensor, "n D"]]
"""A function of an expert, readouts of its output, their places among its visitors, and their row numbers."""


@dataclass(frozen=True)
class RouterGradients:
    """The values by which gradients go through a router's weights; the choice of experts itself has no gradient."""

    outputs: Float[Tensor, "T chosen D"]
    """The output of every chosen expert at each position, before the expert's weight multiplies it."""
    to_inputs: Float[Tensor, "T chosen D"]
    """The gradient of every chosen expert's weight with respect to the mixture's input at its position."""

    def differentiate(self, g: Float[Tensor, "rows D"], at: ReadoutRows) -> Float[Tensor, "rows D"]:
        """Return gradients with respect to the input, Σ_e (g · expert_e(x)) ∂w_e/∂x."""
        total = torch.zeros_like(g)
        for outputs, to_inputs in zip(self.outputs.unbind(1), self.to_inputs.unbind(1), strict=True):
            to_weight = (g * at.of_positions(outputs)).sum(-1, keepdim=True)
            total.addcmul_(to_weight, at.of_positions(to_inputs))
        return total

    @property
    def nbytes(self) -> int:
        """Return the bytes held."""
        return sum(t.numel() * t.element_size() for t in (self.outputs, self.to_inputs))


@dataclass(frozen=True)
class FrozenMixture:
    """A mixture of experts whose routing, weights and slopes are those of one text's forward pass."""

    mixture: Mixture
    experts: tuple[FrozenMLP, ...]
    """The experts, each with slopes (times the router's weights) for those positions alone that visit it."""
    visit_index: Int[Tensor, "experts T"]
    """For each expert and position, the position's index among those that visit the expert; −1 where it does not."""
    router: RouterGradients | None = None
    """The values that gradients through the router need; None unless recorded for gradients."""

    mixes_positions = False

    def visits(
        self, positions: Int[Tensor, " rows"]
    ) -> Iterator[tuple[int, FrozenMLP, Int[Tensor, " n"], Int[Tensor, " n"]]]:
        """Yield each expert that some rows visit: number, slopes, those rows, and their indices among its visitors."""
        for number, expert in enumerate(self.experts):
            place = self.visit_index[number][positions]
            rows = (place >= 0).nonzero()[:, 0]
            if len(rows):
                yield number, expert, rows, place[rows]

    def carry(self, x: Float[Tensor, "T D"], *, with_bias: bool) -> Float[Tensor, "T D"]:
        """Return Σ_e w_e (Σ_p slope_p ⊙ x W_p) W_out over the experts e of each position, with biases or without."""
        y = torch.zeros_like(x)
        for _, expert, rows, _ in self.visits(torch.arange(len(x), device=x.device)):
            y = y.index_add(0, rows, expert.carry(x[rows], with_bias=with_bias))
        return y

    def pull(
        self, g: Float[Tensor, "rows D"], at: ReadoutRows, shares: BiasShares | None = None
    ) -> Float[Tensor, "rows D"]:
        """Return readouts g of the output turned into readouts of the input at the same position."""

        def back(expert: FrozenMLP, own: Tensor, places: ReadoutRows, rows: Int[Tensor, " n"]) -> Tensor:
            return expert.pull(own, places, None if shares is None else shares.of(at.index[0][rows]))

        return self.through_experts(g, at, back)

    def differentiate(
        self, g: Float[Tensor, "rows D"], at: ReadoutRows, x: Float[Tensor, "T D"]
    ) -> Float[Tensor, "rows D"]:
        """Return gradients with respect to the real input x, through the experts and through the router's weights."""
        assert self.router is not None
        inner = self.through_experts(g, at, lambda expert, own, places, _: expert.differentiate(own, places, x))
        return inner + self.router.differentiate(g, at)

    def through_experts(self, g: Float[Tensor, "rows D"], at: ReadoutRows, back: Back) -> Float[Tensor, "rows D"]:
        """Return the sum of `back(expert, rows)` over the experts that the rows' positions visit."""
        total = torch.zeros_like(g)
        for _, expert, rows, places in self.visits(at.positions):
            # To an expert its visitors are positions, and every row stands alone.
            own = ReadoutRows(places.tolist(), True, at.device)
            total.index_add_(0, rows, back(expert, g[rows], own, rows))
        return total

    def holding_rows(self, length: int) -> "FrozenMixture":
        """Return itself: a mixture has no attention weights to hold."""
        return self

    @property
    def nbytes(self) -> int:
        """Return the bytes held beside the model's own weights."""
        held = (
            sum(expert.nbytes for expert in self.experts) + self.visit_index.numel() * self.visit_index.element_size()
        )
        return held if self.router is None else held + self.router.nbytes
