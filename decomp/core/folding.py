"""Networks with their norms folded in: centring and γ are linear, so they become part of the map that follows."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.rules import AttentionMaps, MLPMaps, Network, Norm, Sublayer
from decomp.core.workspace import bytes_of


@dataclass(frozen=True)
class FoldedAttention:
    value: Float[Tensor, "D HV"]
    output: Float[Tensor, "HV D"]
    heads: int
    norm_after: Norm | None


@dataclass(frozen=True)
class FoldedMLP:
    """One contiguous row per neuron, so that active neurons can be gathered."""

    up: Float[Tensor, "F D"]
    down: Float[Tensor, "F D"]
    norm_after: Norm | None


FoldedBlock = tuple[FoldedAttention | FoldedMLP, ...]


@dataclass(frozen=True, eq=False)
class FoldedNetwork:
    """A network whose blocks are folded once and kept, or anew each time where memory is short of that."""

    network: Network

    @cached_property
    def kept(self) -> tuple[FoldedBlock, ...]:
        return tuple(fold_block(block) for block in self.network.blocks)

    def blocks(self, memory: int) -> Iterator[FoldedBlock]:
        """In order; kept if they take no more than a quarter of `memory` bytes."""
        return iter(self.kept) if self.keeps(memory) else map(fold_block, self.network.blocks)

    def keeps(self, memory: int) -> bool:
        return sum(self.bytes_by_block) <= memory // 4

    def bytes_held(self, memory: int) -> int:
        """Bytes of folded weights at once: of all blocks, or of the one in work, the next, and copies on the way."""
        return sum(self.bytes_by_block) if self.keeps(memory) else 3 * max(self.bytes_by_block)

    @cached_property
    def bytes_by_block(self) -> list[int]:
        return [sum(bytes_to_fold(sublayer) for sublayer in block) for block in self.network.blocks]

    @property
    def widest(self) -> tuple[int, int, int]:
        """Neurons of an MLP, width of an attention's values, and heads, at most."""
        maps = [sublayer.maps for block in self.network.blocks for sublayer in block]
        attentions = [m for m in maps if isinstance(m, AttentionMaps)]
        return (
            max(m.up.weight.shape[1] for m in maps if isinstance(m, MLPMaps)),
            max(m.value.weight.shape[1] for m in attentions),
            max(m.heads for m in attentions),
        )


def bytes_to_fold(sublayer: Sublayer) -> int:
    """What a folded sublayer takes beside the model."""
    maps = sublayer.maps
    if isinstance(maps, AttentionMaps):
        return 0 if sublayer.norm_before is None else bytes_of(maps.value.weight)
    return bytes_of(maps.up.weight, None if maps.down.weight.is_contiguous() else maps.down.weight)


@torch.no_grad()
def fold_block(block: tuple[Sublayer, ...]) -> FoldedBlock:
    return tuple(fold_sublayer(sublayer) for sublayer in block)


def fold_sublayer(sublayer: Sublayer) -> FoldedAttention | FoldedMLP:
    def folded(weight: Tensor) -> Tensor:
        return weight if sublayer.norm_before is None else sublayer.norm_before.fold_into(weight)

    maps = sublayer.maps
    if isinstance(maps, AttentionMaps):
        return FoldedAttention(folded(maps.value.weight), maps.output.weight, maps.heads, sublayer.norm_after)
    return FoldedMLP(folded(maps.up.weight).T.contiguous(), maps.down.weight.contiguous(), sublayer.norm_after)
