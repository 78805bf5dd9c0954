"""Which (target, source) pairs there are, and in which row each stands: target-major, no empty triangle."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor


def first_source(target: int, decomposition_length: int) -> int:
    return max(0, target - decomposition_length + 1)


def sources_of(target: int, decomposition_length: int) -> range:
    """Return the sources kept for one target: the most recent `decomposition_length`, the target included."""
    return range(first_source(target, decomposition_length), target + 1)


def pair_offset(target: int, decomposition_length: int) -> int:
    """Return how many pairs stand before this target's first one."""
    full = min(target, decomposition_length)
    return full * (full + 1) // 2 + (target - full) * decomposition_length


def pair_indices(length: int, decomposition_length: int) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Return target and source of each pair, in the order of the rows."""
    widths = torch.arange(1, length + 1).clamp(max=decomposition_length)
    targets = torch.repeat_interleave(torch.arange(length), widths)
    row_of_target = widths.cumsum(0) - widths
    return targets, torch.arange(len(targets)) - row_of_target[targets] + targets - widths[targets] + 1


@dataclass(frozen=True)
class Segment:
    """Consecutive targets that keep the same sources: a full rectangle of rows."""

    targets: range
    sources: range
    row: int

    @property
    def rows(self) -> slice:
        return slice(self.row, self.row + len(self.targets) * len(self.sources))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.targets), len(self.sources)


@dataclass(frozen=True)
class Block:
    """Consecutive segments of one text whose rows go through one matrix product."""

    text: int
    segments: tuple[Segment, ...]

    @cached_property
    def rows(self) -> slice:
        return slice(self.segments[0].rows.start, self.segments[-1].rows.stop)

    @cached_property
    def targets(self) -> range:
        return range(self.segments[0].targets.start, self.segments[-1].targets.stop)

    @cached_property
    def sources(self) -> range:
        return range(self.segments[0].sources.start, max(s.sources.stop for s in self.segments))

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.rows.stop - self.rows.start

    def targets_of(self, segment: Segment) -> slice:
        """Return where a segment is among the block's targets."""
        return slice(segment.targets.start - self.targets.start, segment.targets.stop - self.targets.start)


@dataclass(frozen=True)
class Panel:
    """A range of sources of one text with every target they reach."""

    text: int
    sources: range
    blocks: tuple[Block, ...]

    @property
    def segments(self) -> Iterator[Segment]:
        return (segment for block in self.blocks for segment in block.segments)

    @property
    def targets(self) -> range:
        return range(self.blocks[0].targets.start, self.blocks[-1].targets.stop)

    @property
    def rows(self) -> slice:
        return slice(self.blocks[0].rows.start, self.blocks[-1].rows.stop)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.rows.stop - self.rows.start

    def strips(self, targets: int) -> Iterator[tuple[Block, ...]]:
        """Yield consecutive blocks of about so many targets together."""
        strip: list[Block] = []
        for block in self.blocks:
            strip.append(block)
            if block.targets.stop - strip[0].targets.start >= targets:
                yield tuple(strip)
                strip = []
        if strip:
            yield tuple(strip)

    def diagonal(self) -> tuple[list[int], list[int]]:
        """Return row and source of the pairs whose target is their source."""
        places, sources = [], []
        for segment in self.segments:
            for k in range(
                max(segment.targets.start, segment.sources.start), min(segment.targets.stop, segment.sources.stop)
            ):
                row = segment.row + (k - segment.targets.start) * len(segment.sources)
                places.append(row + k - segment.sources.start)
                sources.append(k)
        return places, sources


def segment_runs(sources: range, length: int, decomposition_length: int) -> Iterator[tuple[range, range]]:
    """Return runs of targets with the same sources out of `sources`."""
    begin, end = sources.start, min(length, sources.stop - 1 + decomposition_length)
    while begin < end:
        kept = range(max(sources.start, first_source(begin, decomposition_length)), min(sources.stop, begin + 1))
        grows = begin + 1 < sources.stop
        shrinks = begin + 1 - decomposition_length >= sources.start
        last_same = begin + 1 if grows or shrinks else min(end, sources.start + decomposition_length)
        yield range(begin, last_same), kept
        begin = last_same


def split_rows(targets: range, sources: range, max_rows: int) -> Iterator[range]:
    """Cut a run of targets so that a piece has at most `max_rows` rows (or is a single target)."""
    step = max(1, max_rows // len(sources))
    return (targets[i : i + step] for i in range(0, len(targets), step))


def make_panel(text: int, sources: range, length: int, decomposition_length: int, row: int, block_rows: int) -> Panel:
    """Lay out one panel from row `row` on, its blocks of at most `block_rows` rows where a target allows."""
    blocks: list[Block] = []
    pending: list[Segment] = []
    for run, kept in segment_runs(sources, length, decomposition_length):
        for targets in split_rows(run, kept, block_rows):
            segment = Segment(targets, kept, row)
            if pending and segment.rows.stop - pending[0].row > block_rows:
                blocks.append(Block(text, tuple(pending)))
                pending = []
            pending.append(segment)
            row = segment.rows.stop
    blocks.append(Block(text, tuple(pending)))
    return Panel(text, sources, tuple(blocks))


Stretch = TypeVar("Stretch", Block, Panel)


def joined(stretches: Iterable[Stretch], max_rows: int) -> Iterator[tuple[Stretch, ...]]:
    """Return runs of neighbours with at most `max_rows` rows together (or a single one), of several texts too."""
    run: list[Stretch] = []
    for stretch in stretches:
        if run and (stretch.rows.start != run[-1].rows.stop or stretch.rows.stop - run[0].rows.start > max_rows):
            yield tuple(run)
            run = []
        run.append(stretch)
    if run:
        yield tuple(run)


def rows_of(run: tuple[Stretch, ...]) -> slice:
    return slice(run[0].rows.start, run[-1].rows.stop)


def within(part: slice, whole: slice) -> slice:
    """Return where a part is, counted from the start of the whole."""
    return slice(part.start - whole.start, part.stop - whole.start)


def source_ranges(length: int, width: int) -> list[range]:
    """Return all sources in ranges of nearly equal width, at most `width`."""
    count = -(-length // width)
    edges = [length * i // count for i in range(count + 1)]
    return [range(a, b) for a, b in pairwise(edges)]
