"""Contributions of chunks of sources through a frozen network, in place, in bounded memory.

The rules are those of `propagation`; here they are arranged for matrix products. Norms before a
map are folded into its weights, and their 1/σ into the attention rows and the slopes. Rows are packed
pairs (see `layout`), so that linear maps meet nothing but real pairs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.layout import Block, Panel, make_panel, source_ranges
from decomp.memory import format_bytes
from decomp.propagation import (
    AttentionMaps,
    FrozenSublayer,
    Network,
    Norm,
    OperatingPoint,
    Sublayer,
    finish,
)

PANEL_WIDTH = 64
"""Sources in a panel at most."""
BLOCK_ROWS = 1024
"""Rows that go through the MLP at once."""


@dataclass(frozen=True)
class FoldedAttention:
    value: Float[Tensor, "D HV"]
    output: Float[Tensor, "HV D"]
    heads: int
    norm_after: Norm | None


@dataclass(frozen=True)
class FoldedMLP:
    up: Float[Tensor, "F D"]
    down: Float[Tensor, "F D"]
    norm_after: Norm | None


@dataclass(frozen=True)
class FoldedNetwork:
    """A network whose `norm_before` have become part of the weights."""

    network: Network
    blocks: tuple[tuple[FoldedAttention | FoldedMLP, ...], ...]


def fold_sublayer(sublayer: Sublayer) -> FoldedAttention | FoldedMLP:
    def fold(weight: Tensor) -> Tensor:
        return weight if sublayer.norm_before is None else sublayer.norm_before.fold_into(weight)

    maps = sublayer.maps
    if isinstance(maps, AttentionMaps):
        return FoldedAttention(fold(maps.value.weight), maps.output.weight, maps.heads, sublayer.norm_after)
    return FoldedMLP(fold(maps.up.weight).T.contiguous(), maps.down.weight, sublayer.norm_after)


@torch.no_grad()
def fold(network: Network) -> FoldedNetwork:
    return FoldedNetwork(network, tuple(tuple(fold_sublayer(s) for s in block) for block in network.blocks))


class Workspace:
    """Buffers by name, made at the first use and written over at the next ones."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        count = 1
        for size in shape:
            count *= size
        buffer = self.buffers.get(name)
        if buffer is None or len(buffer) < count:
            buffer = self.buffers[name] = self.like.new_empty(count)
        return buffer[:count].view(shape)


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


def normalise_rows(rows: Tensor, norm: Norm, inverse_std: Float[Tensor, " T"], block: Block) -> None:
    """A norm after the residual, where nothing follows to fold it into."""
    for segment in block.segments:
        part = rows[segment.rows].view(*segment.shape, -1)
        scale = inverse_std[segment.targets.start : segment.targets.stop, None]
        part.copy_(norm(part, scale.expand(segment.shape), affine=False))


@dataclass(frozen=True)
class Propagation:
    """Panels of some texts on their way through the frozen network, all in one buffer of rows."""

    folded: FoldedNetwork
    points: Sequence[OperatingPoint]
    work: Workspace

    def run(self, panels: Sequence[Panel], observe: Observer | None = None) -> Float[Tensor, "pairs D"]:
        """The rows before the final norm."""
        hidden = self.points[0].embedding.shape[-1]
        rows = self.work("rows", panels[-1].rows.stop, hidden)
        if observe is not None:
            self.embed(rows, panels)
            observe(0, panels, rows)
        for depth, block in enumerate(self.folded.blocks):
            for place, sublayer in enumerate(block):
                for panel in panels:
                    frozen = self.points[panel.text].blocks[depth][place]
                    if isinstance(sublayer, FoldedAttention):
                        step = self.attend_diagonal if depth == place == 0 else self.attend
                        step(rows, panel, sublayer, frozen)
                    else:
                        self.transform(rows, panel, sublayer, frozen)
            if observe is not None:
                observe(depth + 1, panels, rows)
        return rows

    def embed(self, rows: Tensor, panels: Sequence[Panel]) -> None:
        """n[k, k] is the embedding, all else zero."""
        rows.zero_()
        for panel in panels:
            self.add_embedding(rows, panel)

    def add_embedding(self, rows: Tensor, panel: Panel) -> None:
        embedding = self.points[panel.text].embedding
        for segment in panel.segments:
            targets, sources = segment.targets, segment.sources
            for k in range(max(targets.start, sources.start), min(targets.stop, sources.stop)):
                rows[segment.row + (k - targets.start) * len(sources) + k - sources.start] += embedding[k]

    def attention_rows(self, block: Block, panel: Panel, frozen: FrozenSublayer) -> Float[Tensor, "H targets middles"]:
        """A^h[i, j] of the block's targets on the positions that its sources went through, 1/σ folded in."""
        assert frozen.attention is not None
        middles = slice(block.sources.start, block.targets.stop)
        weights = frozen.attention(block.targets.start, block.targets.stop)[:, :, middles]
        if frozen.inverse_std_before is None:
            return weights
        scaled = self.work("attention", *weights.shape)
        return torch.mul(weights, frozen.inverse_std_before[middles], out=scaled)

    def attend_diagonal(self, rows: Tensor, panel: Panel, sublayer: FoldedAttention, frozen: FrozenSublayer) -> None:
        """The first attention: source k is still at position k alone, so A^h[i, k] · e[k] W_V^h W_O^h."""
        embedding = self.points[panel.text].embedding[panel.sources.start : panel.sources.stop]
        values = (embedding @ sublayer.value).view(len(embedding), sublayer.heads, -1)
        outputs = sublayer.output.view(sublayer.heads, -1, sublayer.output.shape[-1])
        carried = torch.einsum("shv,hvd->shd", values, outputs)
        for block in panel.blocks:
            weights = self.attention_rows(block, panel, frozen)
            for segment in block.segments:
                i, k = segment.targets.start - block.targets.start, segment.sources.start
                part = weights[:, i : i + len(segment.targets), k - block.sources.start :][:, :, : len(segment.sources)]
                moved = carried[k - panel.sources.start :][: len(segment.sources)]
                rows[segment.rows].view(*segment.shape, -1).copy_(
                    torch.bmm(part.permute(2, 1, 0), moved).transpose(0, 1)
                )
        self.add_embedding(rows, panel)
        self.normalise_after(rows, panel, sublayer, frozen)

    def attend(self, rows: Tensor, panel: Panel, sublayer: FoldedAttention, frozen: FrozenSublayer) -> None:
        """Values of every pair, mixed over positions by one matrix product per head, projected onto the rows."""
        values = self.values(rows, panel, sublayer)
        first_target, first_source = panel.targets.start, panel.sources.start
        for block in panel.blocks:
            weights = self.attention_rows(block, panel, frozen)
            middles = slice(block.sources.start - first_target, block.targets.stop - first_target)
            kept = slice(block.sources.start - first_source, block.sources.stop - first_source)
            heads, targets, _ = weights.shape
            width, head_dim = kept.stop - kept.start, values.shape[-1]
            mixed = self.work("mixed", heads, targets, width * head_dim)
            torch.bmm(weights, values[:, middles, kept].flatten(2), out=mixed)
            outputs = self.work("outputs", block.rows.stop - block.rows.start, heads * head_dim)
            by_source = mixed.view(heads, targets, width, head_dim)
            for segment in block.segments:
                i = segment.targets.start - block.targets.start
                k = segment.sources.start - block.sources.start
                part = by_source[:, i : i + len(segment.targets), k : k + len(segment.sources)]
                place = slice(segment.rows.start - block.rows.start, segment.rows.stop - block.rows.start)
                outputs[place].view(*segment.shape, heads, head_dim).copy_(part.permute(1, 2, 0, 3))
            rows[block.rows].addmm_(outputs, sublayer.output)
        self.normalise_after(rows, panel, sublayer, frozen)

    def values(self, rows: Tensor, panel: Panel, sublayer: FoldedAttention) -> Float[Tensor, "H targets sources V"]:
        """n W_V, heads first, as a rectangle whose pairs outside of the panel are zero."""
        head_dim = sublayer.value.shape[1] // sublayer.heads
        shape = (sublayer.heads, len(panel.targets), len(panel.sources), head_dim)
        values = self.work("values", *shape)
        first_target, first_source = panel.targets.start, panel.sources.start
        for block in panel.blocks:
            flat = self.work("block", block.rows.stop - block.rows.start, sublayer.value.shape[1])
            torch.mm(rows[block.rows], sublayer.value, out=flat)
            for segment in block.segments:
                targets = slice(segment.targets.start - first_target, segment.targets.stop - first_target)
                sources = slice(segment.sources.start - first_source, segment.sources.stop - first_source)
                if len(segment.sources) < len(panel.sources):
                    values[:, targets].zero_()
                place = slice(segment.rows.start - block.rows.start, segment.rows.stop - block.rows.start)
                part = flat[place].view(*segment.shape, sublayer.heads, head_dim)
                values[:, targets, sources] = part.permute(2, 0, 1, 3)
        return values

    def transform(self, rows: Tensor, panel: Panel, sublayer: FoldedMLP, frozen: FrozenSublayer) -> None:
        """W_2 (slope ⊙ W_1 n), added to the rows."""
        for block in panel.blocks:
            slope = self.slopes(block, frozen)
            neurons = self.work("block", block.rows.stop - block.rows.start, len(sublayer.up))
            torch.mm(rows[block.rows], sublayer.up.T, out=neurons)
            for segment in block.segments:
                i = segment.targets.start - block.targets.start
                place = slice(segment.rows.start - block.rows.start, segment.rows.stop - block.rows.start)
                neurons[place].view(*segment.shape, -1).mul_(slope[i : i + len(segment.targets), None])
            rows[block.rows].addmm_(neurons, sublayer.down)
        self.normalise_after(rows, panel, sublayer, frozen)

    def slopes(self, block: Block, frozen: FrozenSublayer) -> Float[Tensor, "targets F"]:
        """The slopes of a block's targets, 1/σ of the norm before folded in."""
        assert frozen.slope is not None
        targets = slice(block.targets.start, block.targets.stop)
        slope = frozen.slope[targets]
        if frozen.inverse_std_before is None:
            return slope
        return torch.mul(slope, frozen.inverse_std_before[targets, None], out=self.work("slope", *slope.shape))

    def normalise_after(
        self, rows: Tensor, panel: Panel, sublayer: FoldedAttention | FoldedMLP, frozen: FrozenSublayer
    ) -> None:
        if sublayer.norm_after is not None:
            assert frozen.inverse_std_after is not None
            for block in panel.blocks:
                normalise_rows(rows, sublayer.norm_after, frozen.inverse_std_after, block)


def finish_panel(
    rows: Tensor, panel: Panel, network: Network, point: OperatingPoint, work: Workspace
) -> Float[Tensor, "pairs E"]:
    """The final norm and `project_out` of one panel's rows."""
    final = work("final", panel.rows.stop - panel.rows.start, point.hidden.shape[-1])
    for segment in panel.segments:
        inverse_std = point.final_inverse_std
        if inverse_std is not None:
            inverse_std = inverse_std[segment.targets.start : segment.targets.stop]
        done = finish(rows[segment.rows].view(*segment.shape, -1), network, inverse_std, affine=False)
        place = slice(segment.rows.start - panel.rows.start, segment.rows.stop - panel.rows.start)
        final[place].view(*segment.shape, -1).copy_(done)
    return final


def bytes_needed(panel: Panel, folded: FoldedNetwork, point: OperatingPoint) -> int:
    """Bytes of all rows up to this panel's last, and of the buffers that it passes through."""
    hidden, final = point.embedding.shape[-1], point.hidden.shape[-1]
    sublayers = [s for block in folded.blocks for s in block]
    neurons = max((len(s.up) for s in sublayers if isinstance(s, FoldedMLP)), default=0)
    width = max((s.value.shape[1] for s in sublayers if isinstance(s, FoldedAttention)), default=0)
    heads = max((s.heads for s in sublayers if isinstance(s, FoldedAttention)), default=0)
    pairs = panel.rows.stop - panel.rows.start
    block_rows = max(b.rows.stop - b.rows.start for b in panel.blocks)
    block_targets = max(len(b.targets) for b in panel.blocks)
    values = len(panel.targets) * len(panel.sources) * width
    # The model's own attention function holds scores, masked scores and weights at once.
    attention = 4 * heads * block_targets * len(point)
    mixed = block_targets * len(panel.sources) * width
    numbers = panel.rows.stop * hidden + pairs * final + values + attention + mixed
    return point.embedding.element_size() * (numbers + block_rows * (neurons + 2 * width + hidden))


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
                f"{format_bytes(memory)} are left: allow more memory or use a shorter context"
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

    `memory`: bytes for the buffers. ValueError if one source at a time does not fit.
    """
    work = Workspace(points[0].embedding)
    propagation = Propagation(folded, points, work)
    for panels in plan(folded, points, decomposition_length, memory):
        rows = propagation.run(panels, observe)
        for panel in panels:
            yield Chunk(panel, finish_panel(rows, panel, folded.network, points[panel.text], work))
