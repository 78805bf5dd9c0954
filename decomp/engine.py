"""Contributions of chunks of sources through a frozen network, in place, in bounded memory.

The rules are those of `propagation`; `attention` and `mlp` arrange them for matrix products. Norms before
a map are folded into its weights, and their 1/σ into the attention rows and the slopes. Rows are packed
pairs (see `layout`), so that linear maps meet nothing but real pairs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.attention import STRIP_TARGETS, add_embedding, attend, attend_diagonal
from decomp.folding import FoldedAttention, FoldedMLP, FoldedNetwork
from decomp.layout import Panel, make_panel, source_ranges
from decomp.memory import format_bytes
from decomp.mlp import Reach, transform
from decomp.propagation import FrozenSublayer, OperatingPoint
from decomp.workspace import Workspace, bytes_of, normalise_, return_freed_memory

PANEL_WIDTH = 64
"""Sources in a panel at most."""
BLOCK_ROWS = 1024
"""Rows that go through one matrix product at most."""
WORTH_TRIMMING = 2**27
"""Bytes from which on the allocator is asked for what it holds back: that takes milliseconds."""


@dataclass(frozen=True)
class Chunk:
    """The contributions of a range of sources of one text. `rows` is written over by the next chunk."""

    panel: Panel
    rows: Float[Tensor, "pairs D"]

    @property
    def text(self) -> int:
        return self.panel.text

    @property
    def sources(self) -> range:
        return self.panel.sources

    @property
    def targets(self) -> range:
        return self.panel.targets

    def segments(self) -> Iterator[tuple[range, range, Float[Tensor, "targets sources D"]]]:
        """Targets, their sources, and the contributions between them (views)."""
        for segment in self.panel.segments:
            rows = slice(segment.rows.start - self.panel.rows.start, segment.rows.stop - self.panel.rows.start)
            yield segment.targets, segment.sources, self.rows[rows].view(*segment.shape, -1)

    def pairs(self) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Target and source of each row."""
        grids = [torch.cartesian_prod(indices(s.targets), indices(s.sources)).view(-1, 2) for s in self.panel.segments]
        targets, sources = torch.cat(grids).to(self.rows.device).unbind(1)
        return targets.contiguous(), sources.contiguous()

    def contributions(self, target: int) -> tuple[range, Float[Tensor, "sources D"]]:
        """The sources of this chunk that reach one target, and their contributions (a view)."""
        for targets, sources, rows in self.segments():
            if target in targets:
                return sources, rows[target - targets.start]
        raise ValueError(f"target {target} has no source in {self.sources}: it has some for {self.targets}")


def indices(values: range) -> Int[Tensor, " n"]:
    return torch.arange(values.start, values.stop)


Observer = Callable[[int, Sequence[Panel], Tensor], None]
"""Called with the rows after the embedding (0) and after each block (1 …)."""


@dataclass(frozen=True)
class Propagation:
    """Panels of some texts on their way through the frozen network, all in one buffer of rows."""

    folded: FoldedNetwork
    points: Sequence[OperatingPoint]
    work: Workspace

    def run(self, panels: Sequence[Panel], observe: Observer | None = None) -> Float[Tensor, "pairs D"]:
        """The rows before the final norm."""
        rows = self.work("rows", panels[-1].rows.stop, self.points[0].embedding.shape[-1])
        reaches = {text: Reach(tuple(p for p in panels if p.text == text)) for text in sorted({p.text for p in panels})}
        if observe is not None:
            rows.zero_()
            for panel in panels:
                add_embedding(rows, panel, self.points[panel.text].embedding)
            observe(0, panels, rows)
        for depth, block in enumerate(self.folded.blocks):
            for place, sublayer in enumerate(block):
                for text, reach in reaches.items():
                    frozen = self.points[text].blocks[depth][place]
                    self.apply(rows, text, reach, sublayer, frozen, first=depth == place == 0)
            if observe is not None:
                observe(depth + 1, panels, rows)
        return rows

    def apply(
        self,
        rows: Tensor,
        text: int,
        reach: Reach,
        sublayer: FoldedAttention | FoldedMLP,
        frozen: FrozenSublayer,
        first: bool,
    ) -> None:
        """One sublayer on the rows of one text."""
        if isinstance(sublayer, FoldedMLP):
            transform(rows, reach, sublayer, frozen, self.work)
        else:
            for panel in reach.panels:
                if first:
                    attend_diagonal(rows, panel, self.points[text].embedding, sublayer, frozen, self.work)
                else:
                    attend(rows, panel, sublayer, frozen, self.work)
        if sublayer.norm_after is not None:
            assert frozen.inverse_std_after is not None
            for panel in reach.panels:
                for segment in panel.segments:
                    part = rows[segment.rows].view(*segment.shape, -1)
                    place = slice(segment.targets.start, segment.targets.stop)
                    normalise_(part, sublayer.norm_after, frozen.inverse_std_after[place])

    def finish(self, rows: Float[Tensor, "pairs D"], panel: Panel) -> Float[Tensor, "pairs E"]:
        """The final norm and `project_out` of one panel's rows, in place where the width stays."""
        network, point = self.folded.network, self.points[panel.text]
        if network.final_norm is not None:
            assert point.final_inverse_std is not None
            for segment in panel.segments:
                inverse_std = point.final_inverse_std[segment.targets.start : segment.targets.stop]
                normalise_(rows[segment.rows].view(*segment.shape, -1), network.final_norm, inverse_std)
        if network.project_out is None:
            return rows[panel.rows]
        final = self.work("final", len(panel), point.hidden.shape[-1])
        return torch.mm(rows[panel.rows], network.project_out.weight, out=final)


def bytes_needed(panel: Panel, folded: FoldedNetwork, point: OperatingPoint) -> int:
    """Bytes of all rows up to this panel's last, and of the buffers that it passes through."""
    hidden = point.embedding.shape[-1]
    neurons = max(len(s.up) for s in folded.mlps)
    width, heads = max((s.value.shape[1], s.heads) for s in folded.attentions)
    block_rows, block_targets = max(map(len, panel.blocks)), max(len(b.targets) for b in panel.blocks)
    strip_targets = max(s[-1].targets.stop - s[0].targets.start for s in panel.strips(STRIP_TARGETS))
    numbers = {
        "rows": panel.rows.stop * hidden,
        "values": len(panel.targets) * len(panel.sources) * width,
        "mixed": strip_targets * len(panel.sources) * width,
        # The model's own attention function holds scores, masked scores and weights at once.
        "attention": 4 * heads * strip_targets * len(point),
        "outputs, moved": block_rows * (width + hidden),
        "neurons, slope": (block_rows + block_targets) * neurons,
        "up, down, joint": (2 * neurons + hidden) * hidden,
        "final": 0 if folded.network.project_out is None else len(panel) * point.hidden.shape[-1],
    }
    return point.embedding.element_size() * sum(numbers.values())


def bytes_held(folded: FoldedNetwork, points: Sequence[OperatingPoint]) -> int:
    """Bytes beside the model and the buffers: folded weights and operating points."""
    weights = [w for m in folded.mlps for w in (m.up, m.down)] + [a.value for a in folded.attentions]
    frozen = [f for point in points for block in point.blocks for f in block]
    return (
        bytes_of(*weights)
        + sum(bytes_of(f.slope, f.offset) + (0 if f.attention is None else f.attention.nbytes) for f in frozen)
        + sum(bytes_of(p.embedding, p.hidden, *p.hidden_layers) for p in points)
    )


def panel_shape(
    folded: FoldedNetwork, point: OperatingPoint, decomposition_length: int, memory: int
) -> tuple[int, int]:
    """The largest panel width and block rows whose buffers fit into `memory` bytes; ValueError if none do."""
    width, block_rows = PANEL_WIDTH, BLOCK_ROWS
    while True:
        largest = make_panel(0, range(min(width, len(point))), len(point), decomposition_length, 0, block_rows)
        needed = bytes_needed(largest, folded, point)
        if needed <= memory:
            return width, block_rows
        if width == block_rows == 1:
            raise ValueError(
                f"a text of {len(point)} tokens needs {format_bytes(needed)} to propagate one source, "
                f"{format_bytes(max(memory, 0))} are left: allow more memory or use a shorter context"
            )
        width, block_rows = max(1, width // 2), max(1, block_rows // 2)


def plan(
    folded: FoldedNetwork, points: Sequence[OperatingPoint], decomposition_length: int, memory: int
) -> Iterator[list[Panel]]:
    """Groups of panels whose buffers fit into `memory` bytes."""
    group: list[Panel] = []
    for text, point in enumerate(points):
        width, block_rows = panel_shape(folded, point, decomposition_length, memory)
        for sources in source_ranges(len(point), width):
            row = group[-1].rows.stop if group else 0
            panel = make_panel(text, sources, len(point), decomposition_length, row, block_rows)
            if group and bytes_needed(panel, folded, point) > memory:
                yield group
                group = []
                panel = make_panel(text, sources, len(point), decomposition_length, 0, block_rows)
            group.append(panel)
    yield group


@torch.no_grad()
def propagate(
    folded: FoldedNetwork,
    points: Sequence[OperatingPoint],
    decomposition_length: int,
    memory: int,
    observe: Observer | None = None,
) -> Iterator[Chunk]:
    """Contributions to the final hidden states, chunk by chunk, texts and sources in order.

    `memory`: bytes of all that is held beside the model. ValueError if one source at a time does not fit.
    """
    held = bytes_held(folded, points)
    if held > WORTH_TRIMMING:
        return_freed_memory()
    propagation = Propagation(folded, points, Workspace(points[0].embedding))
    for panels in plan(folded, points, decomposition_length, memory - held):
        rows = propagation.run(panels, observe)
        for panel in panels:
            yield Chunk(panel, propagation.finish(rows, panel))
