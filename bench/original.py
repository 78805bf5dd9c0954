"""The original algorithm, plainly: the full rectangle, one source row at a time, LayerNorm elementwise.

Written for comparison; what it computes is what the engine computes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from decomp.core.ablation import Unembedding
from decomp.core.rules import AttentionMaps, FrozenSublayer, Network, OperatingPoint, Sublayer


def reached(source: int, length: int, kept: int) -> slice:
    """All targets, or with a shorter decomposition length those that keep the source."""
    return slice(0, length) if kept >= length else slice(source, min(source + kept, length))


def step(row: Tensor, targets: slice, sublayer: Sublayer, frozen: FrozenSublayer, weights: Tensor | None) -> Tensor:
    inner = row
    if sublayer.norm_before is not None and frozen.inverse_std_before is not None:
        inner = sublayer.norm_before(inner, frozen.inverse_std_before[targets], affine=False)
    maps = sublayer.maps
    if isinstance(maps, AttentionMaps):
        assert weights is not None
        values = (inner @ maps.value.weight).view(len(inner), maps.heads, -1).transpose(0, 1)
        mixed = (weights[:, targets, targets] @ values).transpose(0, 1).reshape(len(inner), -1)
        row = row + mixed @ maps.output.weight
    else:
        assert frozen.slope is not None
        row = row + (frozen.slope[targets] * (inner @ maps.up.weight)) @ maps.down.weight
    if sublayer.norm_after is not None and frozen.inverse_std_after is not None:
        row = sublayer.norm_after(row, frozen.inverse_std_after[targets], affine=False)
    return row


@torch.no_grad()
def propagate(network: Network, point: OperatingPoint, kept: int) -> list[Tensor]:
    """Per source the contributions to the targets it reaches, before the final norm."""
    length = len(point)
    rows = []
    for source in range(length):
        targets = reached(source, length, kept)
        row = torch.zeros(targets.stop - targets.start, point.embedding.shape[1])
        row[source - targets.start] = point.embedding[source]
        rows.append(row)
    for block, frozen_block in zip(network.blocks, point.blocks, strict=True):
        for sublayer, frozen in zip(block, frozen_block, strict=True):
            weights = None if frozen.attention is None else frozen.attention(0, length)
            for source in range(length):
                rows[source] = step(rows[source], reached(source, length, kept), sublayer, frozen, weights)
    return rows


def delta_lp(
    contributions: Iterator[Tensor], hidden: Tensor, next_ids: Tensor, unembedding: Unembedding
) -> list[Tensor]:
    """Per target the log2 probabilities without each source: logits of the whole vocabulary, one target at a time."""
    results = []
    for target, (vectors, y) in enumerate(zip(contributions, next_ids, strict=False)):
        logits = (hidden[target] - vectors) @ unembedding.weight.T
        results.append(torch.log2(torch.softmax(logits, -1))[:, y])
    return results
