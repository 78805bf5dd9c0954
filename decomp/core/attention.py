"""Frozen attention on the rows of panels, in place."""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.folding import FoldedAttention
from decomp.core.pairs import Block, Panel, joined, rows_of, within
from decomp.core.rules import FrozenSublayer
from decomp.core.workspace import Workspace

STRIP_TARGETS = 64
"""Targets whose values are mixed by one product per head: few would read the values often, many meet zeros."""


def attention_rows(block: Block, frozen: FrozenSublayer, work: Workspace) -> Float[Tensor, "H targets middles"]:
    """A^h[i, j] of the block's targets on the positions that its sources went through, 1/σ folded in."""
    assert frozen.attention is not None
    middles = slice(block.sources.start, block.targets.stop)
    weights = frozen.attention(block.targets.start, block.targets.stop)[:, :, middles]
    if frozen.inverse_std_before is None:
        return weights
    scaled = work("attention", *weights.shape)
    return torch.mul(weights, frozen.inverse_std_before[middles], out=scaled)


def attend_diagonal(
    rows: Tensor,
    panel: Panel,
    embedding: Float[Tensor, "T D"],
    sublayer: FoldedAttention,
    frozen: FrozenSublayer,
    work: Workspace,
) -> None:
    """The first attention: source k is still at position k alone, so A^h[i, k] · e[k] W_V^h W_O^h."""
    sources = embedding[panel.sources.start : panel.sources.stop]
    values = (sources @ sublayer.value).view(len(sources), sublayer.heads, -1)
    outputs = sublayer.output.view(sublayer.heads, -1, sublayer.output.shape[-1])
    carried = torch.bmm(values.transpose(0, 1), outputs).transpose(0, 1)
    for block in panel.blocks:
        weights = attention_rows(block, frozen, work)
        for segment in block.segments:
            first = segment.sources.start - block.sources.start
            part = weights[:, block.targets_of(segment), first : first + len(segment.sources)]
            kept = slice(segment.sources.start - panel.sources.start, segment.sources.stop - panel.sources.start)
            moved = work("moved", len(segment.sources), len(segment.targets), rows.shape[1])
            torch.bmm(part.permute(2, 1, 0), carried[kept], out=moved)
            rows[segment.rows].view(*segment.shape, -1).copy_(moved.transpose(0, 1))
    add_embedding(rows, panel, embedding)


def add_embedding(rows: Tensor, panel: Panel, embedding: Float[Tensor, "T D"]) -> None:
    """n[k, k] += e[k]."""
    places, sources = panel.diagonal()
    rows[places] += embedding[sources]


def attend(
    rows: Tensor,
    panels: Sequence[Panel],
    sublayer: FoldedAttention,
    frozen: Sequence[FrozenSublayer],
    block_rows: int,
    work: Workspace,
) -> None:
    """Values of every pair, mixed over positions by one matrix product per head, projected and added to the rows.

    `frozen`: by text. Panels that are given together share the products with the weights.
    """
    heads = sublayer.heads
    runs = list(joined((block for panel in panels for block in panel.blocks), block_rows))
    values = panel_values(rows, panels, runs, sublayer, work)
    mixed_blocks = (
        mixed for panel, own in zip(panels, values, strict=True) for mixed in mix(panel, own, frozen[panel.text], work)
    )
    for run in runs:
        place = rows_of(run)
        outputs = work("outputs", place.stop - place.start, len(sublayer.output))
        for block in run:
            strip, mixed = next(mixed_blocks)
            for segment in block.segments:
                first = segment.sources.start - strip.sources.start
                part = mixed[:, strip.targets_of(segment), first : first + len(segment.sources)]
                own = outputs[within(segment.rows, place)].view(*segment.shape, heads, -1)
                own.copy_(part.permute(1, 2, 0, 3))
        rows[place].addmm_(outputs, sublayer.output)


def mix(
    panel: Panel, values: Float[Tensor, "H targets sources V"], frozen: FrozenSublayer, work: Workspace
) -> Iterator[tuple[Block, Float[Tensor, "H targets sources V"]]]:
    """For each block of the panel the strip that it is in, and Σ_j A^h[i, j] · values[j] of that strip's targets."""
    first_target, first_source = panel.targets.start, panel.sources.start
    for blocks in panel.strips(STRIP_TARGETS):
        strip = Block(panel.text, tuple(segment for block in blocks for segment in block.segments))
        weights = attention_rows(strip, frozen, work)
        middles = slice(strip.sources.start - first_target, strip.targets.stop - first_target)
        kept = slice(strip.sources.start - first_source, strip.sources.stop - first_source)
        heads, targets, _ = weights.shape
        mixed = work("mixed", heads, targets, len(strip.sources), values.shape[-1])
        torch.bmm(weights, values[:, middles, kept].flatten(2), out=mixed.flatten(2))
        for _ in blocks:
            yield strip, mixed


def panel_values(
    rows: Tensor,
    panels: Sequence[Panel],
    runs: Sequence[tuple[Block, ...]],
    sublayer: FoldedAttention,
    work: Workspace,
) -> list[Float[Tensor, "H targets sources V"]]:
    """n W_V of each panel, heads first, as a rectangle whose pairs outside of the panel are zero."""
    heads, width = sublayer.heads, sublayer.value.shape[1]
    shapes = [(heads, len(p.targets), len(p.sources), width // heads) for p in panels]
    sizes = [math.prod(shape) for shape in shapes]
    values = [part.view(shape) for part, shape in zip(work("values", sum(sizes)).split(sizes), shapes, strict=True)]
    owners = iter([owner for owner in zip(panels, values, strict=True) for _ in owner[0].blocks])
    for run in runs:
        place = rows_of(run)
        flat = work("outputs", place.stop - place.start, width)
        torch.mm(rows[place], sublayer.value, out=flat)
        for block in run:
            panel, own = next(owners)
            for segment in block.segments:
                targets = slice(segment.targets.start - panel.targets.start, segment.targets.stop - panel.targets.start)
                sources = slice(segment.sources.start - panel.sources.start, segment.sources.stop - panel.sources.start)
                if len(segment.sources) < len(panel.sources):
                    own[:, targets].zero_()
                part = flat[within(segment.rows, place)]
                own[:, targets, sources] = part.view(*segment.shape, heads, -1).permute(2, 0, 1, 3)
    return values
