"""Frozen attention on the rows of one panel, in place."""

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.folding import FoldedAttention
from decomp.layout import Block, Panel
from decomp.propagation import FrozenSublayer
from decomp.workspace import Workspace

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


def attend(rows: Tensor, panel: Panel, sublayer: FoldedAttention, frozen: FrozenSublayer, work: Workspace) -> None:
    """Values of every pair, mixed over positions by one matrix product per head, projected and added to the rows."""
    values = panel_values(rows, panel, sublayer, work)
    first_target, first_source = panel.targets.start, panel.sources.start
    for blocks in panel.strips(STRIP_TARGETS):
        strip = Block(tuple(segment for block in blocks for segment in block.segments))
        weights = attention_rows(strip, frozen, work)
        middles = slice(strip.sources.start - first_target, strip.targets.stop - first_target)
        kept = slice(strip.sources.start - first_source, strip.sources.stop - first_source)
        heads, targets, _ = weights.shape
        mixed = work("mixed", heads, targets, len(strip.sources), values.shape[-1])
        torch.bmm(weights, values[:, middles, kept].flatten(2), out=mixed.flatten(2))
        for block in blocks:
            outputs = work("outputs", len(block), len(sublayer.output))
            for segment in block.segments:
                first = segment.sources.start - strip.sources.start
                part = mixed[:, strip.targets_of(segment), first : first + len(segment.sources)]
                outputs[block.rows_of(segment)].view(*segment.shape, heads, -1).copy_(part.permute(1, 2, 0, 3))
            rows[block.rows].addmm_(outputs, sublayer.output)


def panel_values(
    rows: Tensor, panel: Panel, sublayer: FoldedAttention, work: Workspace
) -> Float[Tensor, "H targets sources V"]:
    """n W_V, heads first, as a rectangle whose pairs outside of the panel are zero."""
    heads, head_dim = sublayer.heads, sublayer.value.shape[1] // sublayer.heads
    values = work("values", heads, len(panel.targets), len(panel.sources), head_dim)
    first_target, first_source = panel.targets.start, panel.sources.start
    for block in panel.blocks:
        flat = work("outputs", len(block), sublayer.value.shape[1])
        torch.mm(rows[block.rows], sublayer.value, out=flat)
        for segment in block.segments:
            targets = slice(segment.targets.start - first_target, segment.targets.stop - first_target)
            sources = slice(segment.sources.start - first_source, segment.sources.stop - first_source)
            if len(segment.sources) < len(panel.sources):
                values[:, targets].zero_()
            part = flat[block.rows_of(segment)].view(*segment.shape, heads, head_dim)
            values[:, targets, sources] = part.permute(2, 0, 1, 3)
    return values
