"""Attention on the rows of all pairs, in place: values mixed over positions by frozen attention weights."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.network import Attention, Norm
from decomp.core.operating_point import FrozenBranch
from decomp.core.pairs import Block, Panel, as_one, joined, rows_of, sources_within, within
from decomp.core.workspace import Workspace, bytes_of

STRIP_TARGETS = 64
"""The number of targets that are mixed by one product per head: fewer read values often, more multiply zeros."""


@dataclass(frozen=True)
class FoldedAttention:
    """An attention's value and output projections with the norms around them folded in."""

    value: Float[Tensor, "D KV"]
    output: Float[Tensor, "HV D"]
    heads: int
    kv_heads: int

    mixes_positions = True

    @classmethod
    def of(cls, operator: Attention, norm_in: Norm | None, norm_out: Norm | None) -> "FoldedAttention":
        """Return an attention's projections with the norms before and after it folded in."""
        value, output = operator.value.weight, operator.output.weight
        return cls(
            value if norm_in is None else norm_in.before(value),
            output if norm_out is None else norm_out.after(output),
            operator.heads,
            operator.kv_heads,
        )

    @staticmethod
    def bytes_to_fold(operator: Attention, norm_in: Norm | None, norm_out: Norm | None) -> int:
        """Return what the folded projections take beside the model."""
        return bytes_of(
            None if norm_in is None else operator.value.weight, None if norm_out is None else operator.output.weight
        )

    def carry_diagonal(
        self,
        rows: Tensor,
        panel: Panel,
        embedding: Float[Tensor, "T D"],
        frozen: FrozenBranch,
        work: Workspace,
    ) -> None:
        """Add the first attention's outputs A^h[i, k] · e[k] W_V^h W_O^h, where token k is at position k alone."""
        sources = embedding[panel.sources.start : panel.sources.stop]
        values = (sources @ self.value).view(len(sources), self.kv_heads, -1).transpose(0, 1)
        outputs = self.output.view(self.heads, -1, self.output.shape[-1])
        carried = torch.bmm(values.repeat_interleave(self.heads // self.kv_heads, 0), outputs).transpose(0, 1)
        for blocks in panel.strips(STRIP_TARGETS):
            strip = as_one(blocks)
            weights = attention_rows(strip, frozen, work)[:, :, : len(strip.sources)]
            moved = work("mixed", len(strip.sources), len(strip.targets), rows.shape[1])
            # Contiguous, as otherwise every source's product would copy its weights.
            torch.bmm(weights.permute(2, 1, 0).contiguous(), carried[sources_within(strip, panel)], out=moved)
            for segment in strip.segments:
                own = moved[sources_within(segment, strip), strip.targets_of(segment)]
                rows[segment.rows].view(*segment.shape, -1).add_(own.transpose(0, 1))

    def carry(
        self, rows: Tensor, panels: Sequence[Panel], frozen: Sequence[FrozenBranch], block_rows: int, work: Workspace
    ) -> Iterator[None]:
        """Read the rows, yield once, then add the attention's outputs to them; `frozen` has an entry for each text.

        One matrix product per head mixes the values of all pairs over positions. Panels that are given together share
        the products with the weights.
        """
        runs = list(joined((block for panel in panels for block in panel.blocks), block_rows))
        values = panel_values(rows, panels, runs, self, work)
        yield
        mixed_blocks = (
            mixed
            for panel, own in zip(panels, values, strict=True)
            for mixed in mix(panel, own, self.heads, frozen[panel.text], work)
        )
        for run in runs:
            place = rows_of(run)
            outputs = work("outputs", place.stop - place.start, len(self.output))
            for block in run:
                strip, mixed = next(mixed_blocks)
                for segment in block.segments:
                    part = mixed[:, strip.targets_of(segment), sources_within(segment, strip)]
                    own = outputs[within(segment.rows, place)].view(*segment.shape, self.heads, -1)
                    own.copy_(part.permute(1, 2, 0, 3))
            rows[place].addmm_(outputs, self.output)


def attention_rows(block: Block, frozen: FrozenBranch, work: Workspace) -> Float[Tensor, "H targets middles"]:
    """Return A^h[i, j], times the norms' 1/σ, for a block's targets i and all positions j from its first source on."""
    middles = slice(block.begin, block.targets.stop)
    weights = frozen.attention.rows(block.targets.start, block.targets.stop)[:, :, middles]
    if frozen.norm_in is not None:
        weights = torch.mul(weights, frozen.norm_in.inverse_std[middles], out=work("attention", *weights.shape))
    if frozen.norm_out is not None:
        after = frozen.norm_out.inverse_std[block.targets.start : block.targets.stop, None]
        weights = torch.mul(weights, after, out=work("attention", *weights.shape))
    return weights


def add_embedding(rows: Tensor, panel: Panel, embedding: Float[Tensor, "T D"]) -> None:
    """Add each position's embedding to the row of its pair: itself as target, and the source that it belongs to."""
    places, positions = panel.diagonal()
    rows[places] += embedding[positions]


def mix(
    panel: Panel,
    values: Float[Tensor, "K targets sources V"],
    heads: int,
    frozen: FrozenBranch,
    work: Workspace,
) -> Iterator[tuple[Block, Float[Tensor, "H targets sources V"]]]:
    """Yield for each block of a panel the strip of targets it is in, and Σ_j A^h[i, j] · values[j] of the strip."""
    first_target = panel.targets.start
    for blocks in panel.strips(STRIP_TARGETS):
        strip = as_one(blocks)
        weights = attention_rows(strip, frozen, work)
        middles = slice(strip.begin - first_target, strip.targets.stop - first_target)
        kept = sources_within(strip, panel)
        kv_heads, targets = len(values), weights.shape[1]
        mixed = work("mixed", heads, targets, len(strip.sources), values.shape[-1])
        # Heads that share values are rows of one product.
        shared = weights.reshape(kv_heads, -1, weights.shape[-1])
        torch.bmm(shared, values[:, middles, kept].flatten(2), out=mixed.view(kv_heads, shared.shape[1], -1))
        for _ in blocks:
            yield strip, mixed


def panel_values(
    rows: Tensor,
    panels: Sequence[Panel],
    runs: Sequence[tuple[Block, ...]],
    attention: FoldedAttention,
    work: Workspace,
) -> list[Float[Tensor, "K targets sources V"]]:
    """Return the values n W_V of each panel's contributions n, heads first, zero for pairs that are not kept."""
    heads, width = attention.kv_heads, attention.value.shape[1]
    shapes = [(heads, len(p.targets), len(p.sources), width // heads) for p in panels]
    sizes = [math.prod(shape) for shape in shapes]
    values = [part.view(shape) for part, shape in zip(work("values", sum(sizes)).split(sizes), shapes, strict=True)]
    owners = iter([owner for owner in zip(panels, values, strict=True) for _ in owner[0].blocks])
    for run in runs:
        place = rows_of(run)
        flat = work("outputs", place.stop - place.start, width)
        torch.mm(rows[place], attention.value, out=flat)
        for block in run:
            panel, own = next(owners)
            for segment in block.segments:
                targets = slice(segment.targets.start - panel.targets.start, segment.targets.stop - panel.targets.start)
                sources = sources_within(segment, panel)
                if len(segment.sources) < len(panel.sources):
                    own[:, targets].zero_()
                part = flat[within(segment.rows, place)]
                own[:, targets, sources] = part.view(*segment.shape, heads, -1).permute(2, 0, 1, 3)
    return values
