"""The (target, source) pairs that have a contribution, and the row of each: target by target, none left empty."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from decomp.core.partition import Partition


def pair_offset(target: int, decomposition_length: int) -> int:
    """Return the number of pairs before a target's first one, where sources are tokens."""
    full = min(target, decomposition_length)
    return full * (full + 1) // 2 + (target - full) * decomposition_length


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of one text: each target with its `decomposition_length` most recent sources, target by target.

    A source that is a group of tokens counts from its first token on.
    """

    partition: Partition
    decomposition_length: int

    def sources(self, target: int) -> range:
        """Return the sources kept for one target, oldest first."""
        return self.begun_sources(int(self.partition.begun[target]))

    def begun_sources(self, begun: int) -> range:
        """Return the sources that are kept for a target at which `begun` sources have begun, oldest first."""
        return range(max(0, begun - self.decomposition_length), begun)

    def targets(self, sources: range) -> range:
        """Return the targets that keep any of the given sources."""
        last = sources.stop - 1 + self.decomposition_length
        return range(self.partition.begin(sources.start), self.partition.begin(last))

    @property
    def covered(self) -> int:
        """Return the number of targets, from the first on, that keep all sources that have begun."""
        return self.partition.begin(self.decomposition_length)

    @cached_property
    def widths(self) -> Int[Tensor, " T"]:
        """Return the number of sources kept for each target."""
        return self.partition.begun.clamp(max=self.decomposition_length)

    @cached_property
    def offsets(self) -> list[int]:
        """Return the number of pairs before each target's first one, and last the number of all pairs."""
        return [0, *self.widths.cumsum(0).tolist()]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return self.offsets[-1]

    def indices(self) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Return the target and the source of each pair, in the order of the rows."""
        targets = torch.repeat_interleave(torch.arange(len(self.partition)), self.widths)
        first_row, first_source = torch.tensor(self.offsets), self.partition.begun - self.widths
        return targets, torch.arange(len(targets)) - first_row[targets] + first_source[targets]

    def runs(self, sources: range) -> Iterator[tuple[range, range]]:
        """Yield ranges of targets, each with the range of `sources` that all of them keep."""
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
    """A rectangle of pairs: consecutive targets that all keep the same sources, whose rows follow one another."""

    targets: range
    sources: range
    row: int
    begin: int
    """The position of the first token of the first source; earlier positions hold nothing of these sources."""

    @property
    def rows(self) -> slice:
        """Return the rows of all pairs of the rectangle."""
        return slice(self.row, self.row + len(self.targets) * len(self.sources))

    @property
    def shape(self) -> tuple[int, int]:
        """Return the number of targets and that of sources."""
        return len(self.targets), len(self.sources)


@dataclass(frozen=True)
class Block:
    """A number of consecutive segments of one text, whose rows go through one matrix product."""

    text: int
    segments: tuple[Segment, ...]

    @cached_property
    def rows(self) -> slice:
        """Return the rows of all segments, which follow one another."""
        return slice(self.segments[0].rows.start, self.segments[-1].rows.stop)

    @cached_property
    def targets(self) -> range:
        """Return the targets of all segments."""
        return range(self.segments[0].targets.start, self.segments[-1].targets.stop)

    @cached_property
    def sources(self) -> range:
        """Return the range of sources from the first to the last of any segment."""
        return range(self.segments[0].sources.start, max(s.sources.stop for s in self.segments))

    @property
    def begin(self) -> int:
        """Return the position of the first token of the first source."""
        return self.segments[0].begin

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.rows.stop - self.rows.start

    def targets_of(self, segment: Segment) -> slice:
        """Return the slice of the block's targets that a segment has."""
        return slice(segment.targets.start - self.targets.start, segment.targets.stop - self.targets.start)


@dataclass(frozen=True)
class Panel:
    """A range of sources of one text with all targets that they reach, in blocks of rows."""

    text: int
    partition: Partition
    sources: range
    blocks: tuple[Block, ...]

    @property
    def segments(self) -> Iterator[Segment]:
        """Yield the segments of all blocks, in order."""
        return (segment for block in self.blocks for segment in block.segments)

    @property
    def targets(self) -> range:
        """Return the targets that any of the sources reaches."""
        return range(self.blocks[0].targets.start, self.blocks[-1].targets.stop)

    @property
    def rows(self) -> slice:
        """Return the rows of all blocks, which follow one another."""
        return slice(self.blocks[0].rows.start, self.blocks[-1].rows.stop)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.rows.stop - self.rows.start

    def strips(self, targets: int) -> Iterator[tuple[Block, ...]]:
        """Yield runs of consecutive blocks that have about `targets` targets together."""
        strip: list[Block] = []
        for block in self.blocks:
            strip.append(block)
            if block.targets.stop - strip[0].targets.start >= targets:
                yield tuple(strip)
                strip = []
        if strip:
            yield tuple(strip)

    def diagonal(self) -> tuple[Int[Tensor, " own"], Int[Tensor, " own"]]:
        """Return the row and the target of each pair whose source the target itself belongs to."""
        places = [(s.targets.start, s.row, len(s.sources), s.sources.start) for s in self.segments]
        first, row, width, source = (torch.tensor(column) for column in zip(*places, strict=True))
        targets = self.partition.positions(self.sources)
        targets = targets[targets < self.targets.stop]
        segment = torch.searchsorted(first, targets, right=True) - 1
        place = self.partition.labels[targets] - source[segment]
        rows = row[segment] + (targets - first[segment]) * width[segment] + place
        return rows[place >= 0], targets[place >= 0]


def split_rows(targets: range, sources: range, max_rows: int) -> Iterator[range]:
    """Yield pieces of a range of targets that have at most `max_rows` rows each (or are a single target)."""
    step = max(1, max_rows // len(sources))
    return (targets[i : i + step] for i in range(0, len(targets), step))


def make_panel(text: int, sources: range, pairs: Pairs, row: int, block_rows: int) -> Panel:
    """Return the panel of some sources, whose rows begin at `row`, in blocks of at most `block_rows` rows.

    A block of a single target may have more rows.
    """
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
    """Yield runs of consecutive stretches of rows (of any text) with at most `max_rows` rows together, or of one."""
    run: list[Stretch] = []
    for stretch in stretches:
        if run and (stretch.rows.start != run[-1].rows.stop or stretch.rows.stop - run[0].rows.start > max_rows):
            yield tuple(run)
            run = []
        run.append(stretch)
    if run:
        yield tuple(run)


def rows_of(run: tuple[Stretch, ...]) -> slice:
    """Return the rows of consecutive stretches, from the first one's to the last one's."""
    return slice(run[0].rows.start, run[-1].rows.stop)


def as_one(blocks: Sequence[Block]) -> Block:
    """Return consecutive blocks of one text as a single one."""
    return Block(blocks[0].text, tuple(segment for block in blocks for segment in block.segments))


def sources_within(part: Segment | Block, whole: Block | Panel) -> slice:
    """Return the slice of the sources of the whole that a part has."""
    return slice(part.sources.start - whole.sources.start, part.sources.stop - whole.sources.start)


def within(part: slice, whole: slice) -> slice:
    """Return the slice of a part, counted from the start of the whole."""
    return slice(part.start - whole.start, part.stop - whole.start)


def source_ranges(sources: int, width: int) -> list[range]:
    """Return all sources in ranges of nearly equal width, which is at most `width`."""
    count = -(-sources // width)
    edges = [sources * i // count for i in range(count + 1)]
    return [range(a, b) for a, b in pairwise(edges)]
