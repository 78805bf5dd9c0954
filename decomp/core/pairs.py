"""Which (target, source) pairs there are, and in which row each stands: target-major, no empty triangle."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from decomp.core.partition import Partition


def pair_offset(target: int, decomposition_length: int) -> int:
    """Return how many pairs stand before a target's first one where sources are tokens: those of a shorter text."""
    full = min(target, decomposition_length)
    return full * (full + 1) // 2 + (target - full) * decomposition_length


@dataclass(frozen=True, eq=False)
class Pairs:
    """Each target of a text with the most recent sources that have begun, up to so many, target by target."""

    partition: Partition
    decomposition_length: int

    def sources(self, target: int) -> range:
        """Return the sources kept for one target, oldest first."""
        return self.begun_sources(int(self.partition.begun[target]))

    def begun_sources(self, begun: int) -> range:
        """Return the sources kept where so many have begun."""
        return range(max(0, begun - self.decomposition_length), begun)

    def targets(self, sources: range) -> range:
        """Return the targets that keep any of the sources."""
        last = sources.stop - 1 + self.decomposition_length
        return range(self.partition.begin(sources.start), self.partition.begin(last))

    @property
    def covered(self) -> int:
        """Return how many targets, from the first, keep all sources that have begun."""
        return self.partition.begin(self.decomposition_length)

    @cached_property
    def widths(self) -> Int[Tensor, " T"]:
        """Return the number of sources kept for each target."""
        return self.partition.begun.clamp(max=self.decomposition_length)

    @cached_property
    def offsets(self) -> list[int]:
        """Return how many pairs stand before each target's first one, and at the end how many there are."""
        return [0, *self.widths.cumsum(0).tolist()]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return self.offsets[-1]

    def indices(self) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Return target and source of each pair, in the order of the rows."""
        targets = torch.repeat_interleave(torch.arange(len(self.partition)), self.widths)
        first_row, first_source = torch.tensor(self.offsets), self.partition.begun - self.widths
        return targets, torch.arange(len(targets)) - first_row[targets] + first_source[targets]

    def runs(self, sources: range) -> Iterator[tuple[range, range]]:
        """Yield runs of targets with the same sources out of `sources`."""
        targets, begun = self.targets(sources), sources.start + 1
        begin = targets.start
        while begin < targets.stop:
            kept = self.begun_sources(begun)
            kept = range(max(sources.start, kept.start), min(sources.stop, kept.stop))
            changes = begun < sources.stop or begun - self.decomposition_length >= sources.start
            begun = begun + 1 if changes else sources.start + self.decomposition_length + 1
            end = min(targets.stop, self.partition.begin(begun - 1))
            yield range(begin, end), kept
            begin = end


@dataclass(frozen=True)
class Segment:
    """Consecutive targets that keep the same sources: a full rectangle of rows."""

    targets: range
    sources: range
    row: int
    begin: int
    """The position at which the first of the sources begins: none of them is anywhere before."""

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

    @property
    def begin(self) -> int:
        """Return the position at which the first of the sources begins."""
        return self.segments[0].begin

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
    partition: Partition
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

    def diagonal(self) -> tuple[Int[Tensor, " own"], Int[Tensor, " own"]]:
        """Return row and target of the pairs whose source the target itself belongs to."""
        places = [(s.targets.start, s.row, len(s.sources), s.sources.start) for s in self.segments]
        first, row, width, source = (torch.tensor(column) for column in zip(*places, strict=True))
        targets = self.partition.positions(self.sources)
        targets = targets[targets < self.targets.stop]
        segment = torch.searchsorted(first, targets, right=True) - 1
        place = self.partition.labels[targets] - source[segment]
        rows = row[segment] + (targets - first[segment]) * width[segment] + place
        return rows[place >= 0], targets[place >= 0]


def split_rows(targets: range, sources: range, max_rows: int) -> Iterator[range]:
    """Cut a run of targets so that a piece has at most `max_rows` rows (or is a single target)."""
    step = max(1, max_rows // len(sources))
    return (targets[i : i + step] for i in range(0, len(targets), step))


def make_panel(text: int, sources: range, pairs: Pairs, row: int, block_rows: int) -> Panel:
    """Lay out one panel from row `row` on, its blocks of at most `block_rows` rows where a target allows."""
    blocks: list[Block] = []
    pending: list[Segment] = []
    for run, kept in pairs.runs(sources):
        for targets in split_rows(run, kept, block_rows):
            segment = Segment(targets, kept, row, pairs.partition.begin(kept.start))
            if pending and segment.rows.stop - pending[0].row > block_rows:
                blocks.append(Block(text, tuple(pending)))
                pending = []
            pending.append(segment)
            row = segment.rows.stop
    blocks.append(Block(text, tuple(pending)))
    return Panel(text, pairs.partition, sources, tuple(blocks))


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


def source_ranges(sources: int, width: int) -> list[range]:
    """Return all sources in ranges of nearly equal width, at most `width`."""
    count = -(-sources // width)
    edges = [sources * i // count for i in range(count + 1)]
    return [range(a, b) for a, b in pairwise(edges)]
