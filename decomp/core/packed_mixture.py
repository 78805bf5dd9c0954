"""Mixtures of experts on the rows of all pairs, in place: all rows whose targets visit an expert together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.network import Mixture, Norm
from decomp.core.operating_point import FrozenBranch
from decomp.core.packed_mlp import FoldedInPlace, FoldedMLP, scaled_neurons
from decomp.core.pairs import Block, Panel
from decomp.core.workspace import Workspace


@dataclass(frozen=True)
class FoldedMixture(FoldedInPlace):
    """A mixture's experts with the norms around them folded in."""

    experts: tuple[FoldedMLP, ...]

    @classmethod
    def of(cls, operator: Mixture, norm_in: Norm | None, norm_out: Norm | None) -> "FoldedMixture":
        """Return a mixture's experts with the norms before and after it folded in."""
        return cls(tuple(FoldedMLP.of(expert, norm_in, norm_out) for expert in operator.experts))

    @staticmethod
    def bytes_to_fold(operator: Mixture, norm_in: Norm | None, norm_out: Norm | None) -> int:
        """Return what the folded projections take beside the model."""
        return sum(FoldedMLP.bytes_to_fold(expert, norm_in, norm_out) for expert in operator.experts)

    def carry(
        self, rows: Tensor, panels: Sequence[Panel], frozen: Sequence[FrozenBranch], block_rows: int, work: Workspace
    ) -> Iterator[None]:
        """Yield once, then read the rows and add the mixture's outputs to them; `frozen` has an entry for each text."""
        yield
        for panel in panels:
            for block in panel.blocks:
                carry_block(rows[block.rows], targets_of_rows(block, rows.device), self, frozen[panel.text], work)


def targets_of_rows(block: Block, device: torch.device) -> Int[Tensor, " rows"]:
    """Return the target of each row of a block."""
    parts = [
        torch.arange(s.targets.start, s.targets.stop, device=device).repeat_interleave(len(s.sources))
        for s in block.segments
    ]
    return torch.cat(parts)


def carry_block(
    rows: Float[Tensor, "rows D"],
    targets: Int[Tensor, " rows"],
    folded: FoldedMixture,
    frozen: FrozenBranch,
    work: Workspace,
) -> None:
    """Add the outputs of all experts to rows in place; each expert reads the rows as they were before."""
    outputs = work("outputs of experts", *rows.shape).zero_()
    for number, expert, own, places in frozen.mixture.visits(targets):
        visiting = torch.index_select(rows, 0, own, out=work("visiting rows", len(own), rows.shape[1]))
        slopes = [slope[places] for slope in expert.slopes]
        outputs.index_add_(0, own, through_expert(visiting, slopes, folded.experts[number], work))
    for norm in (frozen.norm_in, frozen.norm_out):
        if norm is not None:
            outputs.mul_(norm.inverse_std[targets, None])
    rows.add_(outputs)


def through_expert(
    rows: Float[Tensor, "n D"], slopes: Sequence[Float[Tensor, "n F"]], expert: FoldedMLP, work: Workspace
) -> Float[Tensor, "n D"]:
    """Return (Σ_p slope_p ⊙ rows W_p) W_out of one expert."""
    neurons = scaled_neurons(rows, expert.ups, slopes, work)
    return torch.mm(neurons, expert.down, out=work("output of an expert", len(rows), expert.down.shape[1]))
