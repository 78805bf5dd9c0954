"""The engine: contributions carried through a frozen network, some sources at a time, in bounded memory.

`packed_attention` and `packed_mlp` arrange what the operators carry for matrix products. Norms around a map
are folded into its weights, and their 1/σ into the attention rows and the slopes. Rows are packed pairs (see
`pairs`), so that linear maps meet nothing but real pairs.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.folding import FoldedNetwork, FoldedStage
from decomp.core.network import Norm
from decomp.core.operating_point import FrozenStage, OperatingPoint
from decomp.core.operators import FrozenNorm
from decomp.core.packed_attention import STRIP_TARGETS, add_embedding
from decomp.core.pairs import Pairs, Panel, joined, make_panel, source_ranges, within
from decomp.core.partition import Partition, partitions_of
from decomp.core.workspace import Workspace, normalise_, return_freed_memory
from decomp.io.amounts import format_bytes

PANEL_WIDTH = 64
"""The largest number of sources in a panel."""
BLOCK_ROWS = 2048
"""The largest number of rows that go through one matrix product."""
USABLE = 0.8
"""The share of the given memory that is planned for; the rest is for what the allocator and libraries hold."""
LEAST_TRIMMED = 2**27
"""The bytes of freed buffers from which on the allocator is made to return them, which takes milliseconds."""


@dataclass(frozen=True)
class Chunk:
    """The contributions of a range of sources of one text to all later targets; valid until the next chunk is made."""

    panel: Panel
    rows: Float[Tensor, "pairs D"]

    @property
    def text(self) -> int:
        """Return the number of the text among those that are carried together."""
        return self.panel.text

    @property
    def sources(self) -> range:
        """Return the sources whose contributions the chunk holds."""
        return self.panel.sources

    @property
    def targets(self) -> range:
        """Return the targets that any of the chunk's sources reaches."""
        return self.panel.targets

    def segments(self) -> Iterator[tuple[range, range, Float[Tensor, "targets sources D"]]]:
        """Yield ranges of targets and of sources with the contributions of these pairs (views)."""
        for segment in self.panel.segments:
            rows = self.rows[within(segment.rows, self.panel.rows)]
            yield segment.targets, segment.sources, rows.view(*segment.shape, -1)

    def pairs(self) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Return the target and the source of each row, as two vectors of integers."""
        grids = [torch.cartesian_prod(indices(s.targets), indices(s.sources)).view(-1, 2) for s in self.panel.segments]
        targets, sources = torch.cat(grids).to(self.rows.device).unbind(1)
        return targets.contiguous(), sources.contiguous()

    def contributions(self, target: int) -> tuple[range, Float[Tensor, "sources D"]]:
        """Return the sources of this chunk that reach one target, and their contributions to it (a view).

        ValueError for a target that none of the sources reaches.
        """
        for targets, sources, rows in self.segments():
            if target in targets:
                return sources, rows[target - targets.start]
        raise ValueError(f"target {target} has no source in {self.sources}: it has some for {self.targets}")


def indices(values: range) -> Int[Tensor, " n"]:
    """Return the numbers of a range as a tensor."""
    return torch.arange(values.start, values.stop)


Observer = Callable[[int, Sequence[Panel], Tensor], None]
"""A function that is called with the rows after the embedding (layer 0) and after each block (layer 1 …)."""


@dataclass(frozen=True)
class Group:
    """Some panels of one or more consecutive texts, whose buffers fit into memory together."""

    panels: tuple[Panel, ...]
    block_rows: int
    """The largest number of rows in one matrix product, which may hold rows of several short texts."""


@dataclass(frozen=True)
class Propagation:
    """A procedure that carries the contributions of a group of panels through the frozen network, in one buffer."""

    folded: FoldedNetwork
    points: Sequence[OperatingPoint]
    memory: int
    work: Workspace

    def run(self, group: Group, observe: Observer | None = None) -> Float[Tensor, "pairs D"]:
        """Return the contributions of all pairs of a group, as they are before the final norm."""
        panels = group.panels
        rows = self.work("rows", panels[-1].rows.stop, self.points[0].embedding.shape[-1])
        rows.zero_()
        for panel in panels:
            add_embedding(rows, panel, self.points[panel.text].embedding)
        if observe is not None:
            observe(0, panels, rows)
        for depth, block in enumerate(self.folded.blocks(self.memory)):
            for place, stage in enumerate(block):
                frozen = [point.blocks[depth][place] for point in self.points]
                if depth == place == 0 and all(panel.partition.is_tokens for panel in panels):
                    self.begin(rows, group, stage, frozen)
                else:
                    self.carry(rows, group, stage, frozen)
                if stage.norm is not None:
                    normalise_panels(rows, panels, stage.norm, [f.norm for f in frozen])
            if observe is not None:
                observe(depth + 1, panels, rows)
        return rows

    def begin(self, rows: Tensor, group: Group, stage: FoldedStage, frozen: Sequence[FrozenStage]) -> None:
        """Add the outputs of the first stage, where every token is still at its own position alone."""
        for number, branch in enumerate(stage.branches):
            for panel in group.panels:
                embedding, own = self.points[panel.text].embedding, frozen[panel.text].branches[number]
                branch.carry_diagonal(rows, panel, embedding, own, self.work)

    def carry(self, rows: Tensor, group: Group, stage: FoldedStage, frozen: Sequence[FrozenStage]) -> None:
        """Add the outputs of all branches of a stage, each of which reads the rows as they were before it."""
        operators = [(b, [f.branches[number] for f in frozen]) for number, b in enumerate(stage.branches)]
        mixes = any(branch.mixes_positions for branch in stage.branches)
        for panels in joined(group.panels, group.block_rows) if mixes else [group.panels]:
            steps = [
                branch.carry(rows, panels, own, group.block_rows, self.work)
                # An MLP reads its rows only when it goes on: it goes first, attentions have read theirs by then.
                for branch, own in sorted(operators, key=lambda pair: pair[0].mixes_positions)
            ]
            for step in steps:
                next(step)
            for step in steps:
                next(step, None)

    def finish(self, rows: Float[Tensor, "pairs D"], panel: Panel) -> Float[Tensor, "pairs E"]:
        """Apply the final norm and `project_out` to one panel's rows, in place where the width stays."""
        network, point = self.folded.network, self.points[panel.text]
        if network.final_norm is not None:
            normalise_panels(rows, [panel], network.final_norm, [p.final_norm for p in self.points])
        if network.project_out is None:
            return rows[panel.rows]
        final = self.work("final", len(panel), point.hidden.shape[-1])
        return torch.mm(rows[panel.rows], network.project_out.weight, out=final)


def normalise_panels(rows: Tensor, panels: Sequence[Panel], norm: Norm, frozen: Sequence[FrozenNorm | None]) -> None:
    """Apply the linear part of a norm to panels in place; `frozen` holds each text's norm at its operating point.

    It is for norms that nothing linear follows: others are folded into the weights after them.
    """
    for panel in panels:
        own = frozen[panel.text]
        assert own is not None
        for segment in panel.segments:
            place = slice(segment.targets.start, segment.targets.stop)
            normalise_(rows[segment.rows].view(*segment.shape, -1), norm, own.inverse_std[place])


def buffer_sizes(panel: Panel, block_rows: int, folded: FoldedNetwork, point: OperatingPoint) -> Counter[str]:
    """Return the bytes of each buffer that a panel needs, by the buffer's name; `rows` counts all panels up to it."""
    hidden = point.embedding.shape[-1]
    network = folded.network
    neurons, width = network.neurons, network.width
    run_rows = max(*map(len, panel.blocks), min(panel.rows.stop, block_rows))
    block_targets = max(len(b.targets) for b in panel.blocks)
    strip_targets = max(s[-1].targets.stop - s[0].targets.start for s in panel.strips(STRIP_TARGETS))
    rectangle = len(panel.targets) * len(panel.sources)
    # Panels share products up to so many rows; their rectangles are held at once.
    rectangles = max(rectangle, -(-run_rows * rectangle // len(panel)))
    numbers = {
        "rows": panel.rows.stop * hidden,
        "values": rectangles * network.value_width,
        "mixed": strip_targets * len(panel.sources) * max(width, hidden),
        # The model's own attention function holds scores, masked scores and weights at once.
        "attention": 4 * network.heads * strip_targets * len(point),
        "outputs, moved": run_rows * (width + hidden),
        "neurons, slope": (run_rows * network.inputs + block_targets + network.inputs) * neurons,
        "rows, outputs and slopes of experts": run_rows * network.gathered,
        "up, down, joint": ((network.inputs + 1) * neurons + hidden) * hidden,
        "final": 0 if network.project_out is None else len(panel) * point.hidden.shape[-1],
    }
    item = point.embedding.element_size()
    return Counter({name: item * count for name, count in numbers.items()})


def bytes_held(folded: FoldedNetwork, points: Sequence[OperatingPoint], memory: int) -> int:
    """Return the bytes of folded weights and operating points, which come beside the model and the buffers."""
    return folded.bytes_held(memory) + sum(point.nbytes for point in points)


def panel_shape(folded: FoldedNetwork, point: OperatingPoint, pairs: Pairs, memory: int) -> tuple[int, int]:
    """Return the largest panel width and number of block rows whose buffers fit into `memory` bytes.

    ValueError where not even one source at a time fits.
    """
    width, block_rows = PANEL_WIDTH, BLOCK_ROWS
    while True:
        needed = max(
            buffer_sizes(make_panel(0, sources, pairs, 0, block_rows), block_rows, folded, point).total()
            for sources in largest_ranges(pairs, width)
        )
        if needed <= memory:
            return width, block_rows
        if width == block_rows == 1:
            more = int((needed - memory) / USABLE) + 1
            raise ValueError(
                f"a text of {len(point)} tokens needs {format_bytes(needed)} to propagate one source, "
                f"{format_bytes(max(memory, 0))} are left: allow about {format_bytes(more)} more memory or use a "
                "shorter context"
            )
        width, block_rows = max(1, width // 2), max(1, block_rows // 2)


def largest_ranges(pairs: Pairs, width: int) -> list[range]:
    """Return ranges of at most `width` sources, one of which has the most pairs of all such ranges.

    It is the range of the oldest sources, which have the most targets, unless only recent sources are kept; then any
    may be it, where sources are groups of uneven length.
    """
    sources = pairs.partition.count
    if pairs.partition.is_tokens or pairs.decomposition_length >= sources:
        return [range(min(width, sources))]
    return source_ranges(sources, width)


def plan(
    folded: FoldedNetwork, points: Sequence[OperatingPoint], pairs: Sequence[Pairs], memory: int
) -> Iterator[Group]:
    """Yield groups of panels whose buffers fit into `memory` bytes; `points` and `pairs` have one entry a text."""
    group, sizes = Group((), 1), Counter[str]()
    for text, (point, own) in enumerate(zip(points, pairs, strict=True)):
        width, block_rows = panel_shape(folded, point, own, memory)
        for sources in source_ranges(own.partition.count, width):
            row = group.panels[-1].rows.stop if group.panels else 0
            panel = make_panel(text, sources, own, row, block_rows)
            run_rows = max(group.block_rows, block_rows)
            larger = sizes | buffer_sizes(panel, run_rows, folded, point)
            if group.panels and larger.total() > memory:
                yield group
                group, run_rows = Group((), 1), block_rows
                panel = make_panel(text, sources, own, 0, block_rows)
                larger = buffer_sizes(panel, block_rows, folded, point)
            group, sizes = Group((*group.panels, panel), run_rows), larger
    yield group


@torch.no_grad()
def propagate(
    folded: FoldedNetwork,
    points: Sequence[OperatingPoint],
    decomposition_length: int,
    memory: int,
    observe: Observer | None = None,
    partitions: Sequence[Partition] | None = None,
) -> Iterator[Chunk]:
    """Yield the contributions to the final hidden states in chunks of sources, texts and sources in order.

    `memory` limits the bytes of all that is held beside the model. `partitions` are each text's sources, by default
    its tokens. ValueError if not even one source at a time fits, and for partitions that do not fit the texts.
    """
    pairs = [Pairs(p, decomposition_length) for p in partitions_of([len(point) for point in points], partitions)]
    held = bytes_held(folded, points, memory)
    if held > LEAST_TRIMMED:
        return_freed_memory()
    propagation = Propagation(folded, points, memory, Workspace(points[0].embedding))
    for group in plan(folded, points, pairs, int(USABLE * memory) - held):
        rows = propagation.run(group, observe)
        for panel in group.panels:
            yield Chunk(panel, propagation.finish(rows, panel))
