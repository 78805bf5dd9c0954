"""Networks with their norms folded in: centring and γ are linear, so they become part of the map that follows."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.propagation import AttentionMaps, Network, Norm, Sublayer


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


@dataclass(frozen=True)
class FoldedNetwork:
    network: Network
    blocks: tuple[tuple[FoldedAttention | FoldedMLP, ...], ...]

    @property
    def mlps(self) -> list[FoldedMLP]:
        return [s for block in self.blocks for s in block if isinstance(s, FoldedMLP)]

    @property
    def attentions(self) -> list[FoldedAttention]:
        return [s for block in self.blocks for s in block if isinstance(s, FoldedAttention)]


def fold_sublayer(sublayer: Sublayer) -> FoldedAttention | FoldedMLP:
    def folded(weight: Tensor) -> Tensor:
        return weight if sublayer.norm_before is None else sublayer.norm_before.fold_into(weight)

    maps = sublayer.maps
    if isinstance(maps, AttentionMaps):
        return FoldedAttention(folded(maps.value.weight), maps.output.weight, maps.heads, sublayer.norm_after)
    return FoldedMLP(folded(maps.up.weight).T.contiguous(), maps.down.weight.contiguous(), sublayer.norm_after)


@torch.no_grad()
def fold(network: Network) -> FoldedNetwork:
    return FoldedNetwork(network, tuple(tuple(fold_sublayer(s) for s in block) for block in network.blocks))
