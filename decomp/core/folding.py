"""Folding norms into weights: centring and γ are linear, so that they become part of the maps around them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from decomp.core.network import MLP, Attention, Branch, Mixture, Network, Norm, Stage
from decomp.core.packed_attention import FoldedAttention
from decomp.core.packed_mixture import FoldedMixture
from decomp.core.packed_mlp import FoldedMLP

Folded = FoldedAttention | FoldedMLP | FoldedMixture
FOLDED: dict[type, Any] = {Attention: FoldedAttention, MLP: FoldedMLP, Mixture: FoldedMixture}
"""The class that carries contributions through each kind of operator with folded weights."""


@dataclass(frozen=True)
class FoldedStage:
    """A stage whose operators have the norms around them folded in; the norm after their sum remains as it is."""

    branches: tuple[Folded, ...]
    norm: Norm | None


FoldedBlock = tuple[FoldedStage, ...]


@dataclass(frozen=True, eq=False)
class FoldedNetwork:
    """A network with its norms folded into its weights: once for all, or at every use where memory is short."""

    network: Network

    @cached_property
    def kept(self) -> tuple[FoldedBlock, ...]:
        """Return all blocks, folded at the first use and held from then on."""
        return tuple(fold_block(block) for block in self.network.blocks)

    def blocks(self, memory: int) -> Iterator[FoldedBlock]:
        """Return the folded blocks in order; they are held if they take no more than a quarter of `memory` bytes."""
        return iter(self.kept) if self.keeps(memory) else map(fold_block, self.network.blocks)

    def keeps(self, memory: int) -> bool:
        """Return whether all folded blocks are held within `memory` bytes."""
        return sum(self.bytes_by_block) <= memory // 4

    def bytes_held(self, memory: int) -> int:
        """Return the bytes of folded weights at a time: those of all blocks, or of two and the copies they need."""
        return sum(self.bytes_by_block) if self.keeps(memory) else 3 * max(self.bytes_by_block)

    @cached_property
    def bytes_by_block(self) -> list[int]:
        """Return the bytes that each folded block takes beside the model's own weights."""
        return [
            sum(bytes_to_fold(branch) for stage in block for branch in stage.branches) for block in self.network.blocks
        ]


def bytes_to_fold(branch: Branch) -> int:
    """Return the bytes that a folded branch takes beside the model's own weights."""
    count: int = FOLDED[type(branch.operator)].bytes_to_fold(branch.operator, branch.norm_in, branch.norm_out)
    return count


@torch.no_grad()
def fold_block(block: tuple[Stage, ...]) -> FoldedBlock:
    """Return a block with its norms folded in."""
    return tuple(FoldedStage(tuple(map(fold_branch, stage.branches)), stage.norm) for stage in block)


def fold_branch(branch: Branch) -> Folded:
    """Return an operator with the norms around it folded in."""
    folded: Folded = FOLDED[type(branch.operator)].of(branch.operator, branch.norm_in, branch.norm_out)
    return folded
