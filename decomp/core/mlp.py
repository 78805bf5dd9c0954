"""Frozen MLPs on rows, in place: W_2 (slope ⊙ W_1 n) by the cheapest of three exact ways.

`dense`: all neurons, whole blocks of targets at once. `sparse`: at each target only the neurons whose
slope is not zero; the others contribute exactly nothing. `formed`: at each target the map
`W_2 diag(slope) W_1` is formed once and applied to all its sources.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.folding import FoldedMLP
from decomp.core.pairs import Block, Panel, Segment, joined, rows_of, within
from decomp.core.rules import FrozenSublayer
from decomp.core.workspace import Workspace

Path = Literal["dense", "sparse", "formed"]

GATHER_ROWS = 15
"""What a target of its own costs beside its products, in source rows of the same products (measured: gathering
a neuron's weights takes the time of 6 rows, a product of few rows that of 9 more)."""
CALL_FLOPS = {"cpu": 2 * 10**6, "cuda": 10**8}
"""What one call costs beside its arithmetic on a device, in the floating-point operations of its time."""
CALLS = 3
"""Calls for each target of its own, and again for each panel that it is in."""


@dataclass(frozen=True)
class Reach:
    """One text's panels, and where each target's rows are in them."""

    panels: tuple[Panel, ...]

    @cached_property
    def rows(self) -> dict[int, list[slice]]:
        places: dict[int, list[slice]] = {}
        for panel in self.panels:
            for segment in panel.segments:
                width = len(segment.sources)
                for t, target in enumerate(segment.targets):
                    start = segment.row + t * width
                    places.setdefault(target, []).append(slice(start, start + width))
        return places

    @cached_property
    def counts(self) -> dict[int, int]:
        """Sources of each target."""
        return {target: sum(s.stop - s.start for s in slices) for target, slices in self.rows.items()}


def cheapest_path(active: int, sources: int, panels: int, hidden: int, neurons: int, device: str) -> Path:
    """By floating-point operations, the overhead of a target of its own included."""
    apart = CALL_FLOPS.get(device, CALL_FLOPS["cuda"]) * CALLS * (1 + panels)
    costs: dict[Path, float] = {
        "dense": 4 * hidden * neurons * sources,
        "sparse": 4 * hidden * active * (sources + GATHER_ROWS) + apart,
        "formed": 2 * hidden**2 * (active + sources + GATHER_ROWS) + 4 * hidden * active * GATHER_ROWS + apart,
    }
    return min(costs, key=costs.__getitem__)


def choose_paths(reach: Reach, slope: Float[Tensor, "T F"] | None, hidden: int) -> dict[int, Path]:
    """The cheapest way for each target."""
    assert slope is not None
    active = slope.count_nonzero(1).tolist()
    neurons, device = slope.shape[1], slope.device.type
    return {
        target: cheapest_path(active[target], reach.counts[target], len(places), hidden, neurons, device)
        for target, places in reach.rows.items()
    }


def transform(
    rows: Tensor,
    reaches: Mapping[int, Reach],
    sublayer: FoldedMLP,
    frozen: Sequence[FrozenSublayer],
    block_rows: int,
    work: Workspace,
) -> None:
    """W_2 (slope ⊙ W_1 n), added to the rows. `reaches` and `frozen`: by text."""
    paths = {text: choose_paths(reach, frozen[text].slope, rows.shape[1]) for text, reach in reaches.items()}
    dense = (
        part
        for text, reach in reaches.items()
        for panel in reach.panels
        for block in panel.blocks
        for part in dense_parts(block, paths[text])
    )
    for run in joined(dense, block_rows):
        transform_run(rows, run, sublayer, frozen, work)
    for text, reach in reaches.items():
        for target, path in paths[text].items():
            if path != "dense":
                transform_target(rows, reach.rows[target], target, sublayer, frozen[text], path == "formed", work)


def dense_parts(block: Block, paths: dict[int, Path]) -> Iterator[Block]:
    """The block's runs of dense targets."""
    run: list[Segment] = []
    for segment in block.segments:
        for dense, group in groupby(segment.targets, lambda target: paths[target] == "dense"):
            targets = list(group)
            if dense:
                row = segment.row + (targets[0] - segment.targets.start) * len(segment.sources)
                run.append(Segment(range(targets[0], targets[-1] + 1), segment.sources, row))
            elif run:
                yield Block(block.text, tuple(run))
                run = []
    if run:
        yield Block(block.text, tuple(run))


def transform_run(
    rows: Tensor, run: tuple[Block, ...], sublayer: FoldedMLP, frozen: Sequence[FrozenSublayer], work: Workspace
) -> None:
    """All neurons, all targets of neighbouring blocks."""
    place = rows_of(run)
    neurons = work("neurons", place.stop - place.start, len(sublayer.up))
    torch.mm(rows[place], sublayer.up.T, out=neurons)
    for block in run:
        slope = scaled_slopes(block.targets, frozen[block.text], work)
        for segment in block.segments:
            part = neurons[within(segment.rows, place)].view(*segment.shape, -1)
            part.mul_(slope[block.targets_of(segment), None])
    rows[place].addmm_(neurons, sublayer.down)


def transform_target(
    rows: Tensor,
    places: Sequence[slice],
    target: int,
    sublayer: FoldedMLP,
    frozen: FrozenSublayer,
    formed: bool,
    work: Workspace,
) -> None:
    """The active neurons of one target, gathered once for all its sources; their joint map if `formed`."""
    (slope,) = scaled_slopes(range(target, target + 1), frozen, work)
    active = slope.nonzero()[:, 0]
    hidden, slope = rows.shape[1], slope[active]
    up = torch.index_select(sublayer.up, 0, active, out=work("up", *sublayer.up.shape)[: len(active)])
    down = torch.index_select(sublayer.down, 0, active, out=work("down", *sublayer.down.shape)[: len(active)])
    if formed:
        joint = torch.mm(up.mul_(slope[:, None]).T, down, out=work("joint", hidden, hidden))
    for place in places:
        part = rows[place]
        if formed:
            part.add_(torch.mm(part, joint, out=work("moved", len(part), hidden)))
        else:
            neurons = torch.mm(part, up.T, out=work("neurons", len(part), len(active)))
            part.addmm_(neurons.mul_(slope), down)


def scaled_slopes(targets: range, frozen: FrozenSublayer, work: Workspace) -> Float[Tensor, "targets F"]:
    """Slopes with 1/σ of the norm before folded in."""
    assert frozen.slope is not None
    place = slice(targets.start, targets.stop)
    slope = frozen.slope[place]
    if frozen.inverse_std_before is None:
        return slope
    return torch.mul(slope, frozen.inverse_std_before[place, None], out=work("slope", *slope.shape))
