"""MLPs on the rows n of all pairs, in place: (Σ_p slope_p ⊙ n W_p) W_out by the cheapest of three exact ways.

`dense`: all neurons, whole blocks of targets at once. `sparse`: at each target only the neurons of which a
slope is not zero; the others contribute exactly nothing. `formed`: at each target the map
`Σ_p W_p diag(slope_p) W_out` is formed once and applied to all its sources.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decomp.core.network import MLP, Norm
from decomp.core.operating_point import FrozenBranch
from decomp.core.pairs import Block, Panel, Segment, joined, rows_of, within
from decomp.core.workspace import Workspace, bytes_of

Path = Literal["dense", "sparse", "formed"]

GATHER_ROWS = 15
"""The cost of treating one target by itself beside its matrix products, in source rows of these products.

Measured: gathering a neuron's weights takes the time of 6 rows, a product of few rows that of 9 more.
"""
CALL_FLOPS = {"cpu": 2 * 10**6, "cuda": 10**8}
"""The cost of one call on a device beside its arithmetic, in floating-point operations that take as long."""
CALLS = 3
"""The number of calls for each target that is treated by itself, and again for each panel that it is in."""


class FoldedInPlace:
    """A mixin for folded operators that map each position by itself (MLPs and mixtures of experts)."""

    mixes_positions = False

    def carry_diagonal(
        self,
        rows: Tensor,
        panel: Panel,
        embedding: Float[Tensor, "T D"],
        frozen: FrozenBranch,
        work: Workspace,
    ) -> None:
        """Add the operator's outputs for the embeddings, where every token is still at its own position alone."""
        places, positions = panel.diagonal()
        rows[places] += frozen.carry(embedding, with_bias=False)[positions]


@dataclass(frozen=True)
class FoldedMLP(FoldedInPlace):
    """An MLP's input and output projections with the norms around them folded in.

    Each matrix has one contiguous row per neuron, so that active neurons can be gathered.
    """

    ups: tuple[Float[Tensor, "F D"], ...]
    down: Float[Tensor, "F D"]

    @classmethod
    def of(cls, operator: MLP, norm_in: Norm | None, norm_out: Norm | None) -> "FoldedMLP":
        """Return an MLP's projections with the norms before and after it folded in."""
        ups = [x.weight if norm_in is None else norm_in.before(x.weight) for x in operator.inputs]
        down = operator.output.weight if norm_out is None else norm_out.after(operator.output.weight)
        return cls(tuple(up.T.contiguous() for up in ups), down.contiguous())

    @staticmethod
    def bytes_to_fold(operator: MLP, norm_in: Norm | None, norm_out: Norm | None) -> int:
        """Return what the folded projections take beside the model."""
        down = operator.output.weight
        return bytes_of(
            *(x.weight for x in operator.inputs), None if down.is_contiguous() and norm_out is None else down
        )

    def carry(
        self, rows: Tensor, panels: Sequence[Panel], frozen: Sequence[FrozenBranch], block_rows: int, work: Workspace
    ) -> Iterator[None]:
        """Yield once, then read the rows and add the MLP's outputs to them; `frozen` has an entry for each text."""
        yield
        texts = {text: TextPanels(tuple(group)) for text, group in groupby(panels, lambda panel: panel.text)}
        active = {text: active_neurons(frozen[text].mlp.slopes) for text in texts}
        paths = {text: choose_paths(own, active[text], self) for text, own in texts.items()}
        dense = (part for panel in panels for block in panel.blocks for part in dense_parts(block, paths[panel.text]))
        for run in joined(dense, block_rows):
            carry_run(rows, run, self, frozen, work)
        for text, own in texts.items():
            for target, path in paths[text].items():
                if path != "dense":
                    neurons = active[text][target].nonzero()[:, 0]
                    slopes = slopes_at(target, neurons, frozen[text], work)
                    carry_target(rows, own.rows[target], self, neurons, slopes, path == "formed", block_rows, work)


@dataclass(frozen=True)
class TextPanels:
    """The panels of one text, with the rows of each target in them."""

    panels: tuple[Panel, ...]

    @cached_property
    def rows(self) -> dict[int, list[slice]]:
        """Return for each target its rows, one slice in each panel."""
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
        """Return the number of sources of each target."""
        return {target: sum(s.stop - s.start for s in slices) for target, slices in self.rows.items()}


def cheapest_path(
    active: int, sources: int, panels: int, hidden: int, neurons: int, device: str, inputs: int = 1
) -> Path:
    """Return the way (dense, sparse or formed) with the least cost for one target with `active` active neurons.

    Costs are floating-point operations, the overhead of treating a target by itself included.
    """
    apart = CALL_FLOPS.get(device, CALL_FLOPS["cuda"]) * CALLS * (1 + panels)
    row = 2 * hidden * (inputs + 1)
    costs: dict[Path, float] = {
        "dense": row * neurons * sources,
        "sparse": row * active * (sources + GATHER_ROWS) + apart,
        "formed": 2 * hidden**2 * (active + sources + GATHER_ROWS) + row * active * GATHER_ROWS + apart,
    }
    return min(costs, key=costs.__getitem__)


def active_neurons(slopes: Sequence[Float[Tensor, "*T F"]]) -> Bool[Tensor, "*T F"]:
    """Return the neurons with a slope that is not zero, for any of the input projections."""
    active = slopes[0] != 0
    for slope in slopes[1:]:
        active = active | (slope != 0)
    return active


def choose_paths(panels: TextPanels, active: Bool[Tensor, "T F"], mlp: FoldedMLP) -> dict[int, Path]:
    """Return the cheapest way for each target."""
    counts, device = active.sum(1).tolist(), active.device.type
    neurons, hidden = mlp.down.shape
    return {
        target: cheapest_path(counts[target], panels.counts[target], len(rows), hidden, neurons, device, len(mlp.ups))
        for target, rows in panels.rows.items()
    }


def dense_parts(block: Block, paths: dict[int, Path]) -> Iterator[Block]:
    """Yield the parts of a block whose consecutive targets all take the way `dense`."""
    run: list[Segment] = []
    for segment in block.segments:
        for dense, group in groupby(segment.targets, lambda target: paths[target] == "dense"):
            targets = list(group)
            if dense:
                row = segment.row + (targets[0] - segment.targets.start) * len(segment.sources)
                run.append(Segment(range(targets[0], targets[-1] + 1), segment.sources, row, segment.begin))
            elif run:
                yield Block(block.text, tuple(run))
                run = []
    if run:
        yield Block(block.text, tuple(run))


def carry_run(
    rows: Tensor, run: tuple[Block, ...], mlp: FoldedMLP, frozen: Sequence[FrozenBranch], work: Workspace
) -> None:
    """Add the MLP's outputs by all neurons to the rows of consecutive blocks, in place."""
    place = rows_of(run)
    shape = place.stop - place.start, len(mlp.down)
    neurons = work("neurons", *shape)
    for number, up in enumerate(mlp.ups):
        own = torch.mm(rows[place], up.T, out=neurons if number == 0 else work("gated neurons", *shape))
        for block in run:
            slope = scaled_slopes(block.targets, frozen[block.text], number, work)
            for segment in block.segments:
                part = own[within(segment.rows, place)].view(*segment.shape, -1)
                part.mul_(slope[block.targets_of(segment), None])
        if number > 0:
            neurons.add_(own)
    rows[place].addmm_(neurons, mlp.down)


def carry_target(
    rows: Tensor,
    places: Sequence[slice],
    mlp: FoldedMLP,
    active: Int[Tensor, " active"],
    slopes: Sequence[Float[Tensor, " active"]],
    formed: bool,
    block_rows: int,
    work: Workspace,
) -> None:
    """Add the outputs of one target's active neurons, whose weights are gathered once for all its sources.

    If `formed`, the map through all these neurons is made once, and applied to each source.
    """
    *ups, down = (
        torch.index_select(weights, 0, active, out=work(f"gathered {number}", *weights.shape)[: len(active)])
        for number, weights in enumerate((*mlp.ups, mlp.down))
    )
    if formed:
        carry_by_map(rows, places, ups, slopes, down, work)
    else:
        for run in places_together(places, block_rows):
            carry_by_neurons(rows, run, ups, slopes, down, work)


def carry_by_map(
    rows: Tensor,
    places: Sequence[slice],
    ups: Sequence[Float[Tensor, "active D"]],
    slopes: Sequence[Float[Tensor, " active"]],
    down: Float[Tensor, "active D"],
    work: Workspace,
) -> None:
    """Add the outputs Σ_p n W_p diag(slope_p) W_out to the rows n of a target by one matrix for all; changes `ups`."""
    up = ups[0].mul_(slopes[0][:, None])
    for other, slope in zip(ups[1:], slopes[1:], strict=True):
        up.addcmul_(other, slope[:, None])
    joint = torch.mm(up.T, down, out=work("joint", rows.shape[1], rows.shape[1]))
    for place in places:
        part = rows[place]
        part.add_(torch.mm(part, joint, out=work("moved", *part.shape)))


def carry_by_neurons(
    rows: Tensor,
    places: Sequence[slice],
    ups: Sequence[Float[Tensor, "active D"]],
    slopes: Sequence[Float[Tensor, " active"]],
    down: Float[Tensor, "active D"],
    work: Workspace,
) -> None:
    """Add the outputs Σ_p (slope_p ⊙ n W_p) W_out to the rows n of a target, all in one product with each `up`."""
    sizes = [place.stop - place.start for place in places]
    parts = [rows[place] for place in places]
    joined = parts[0] if len(parts) == 1 else torch.cat(parts, out=work("moved", sum(sizes), rows.shape[1]))
    for part, own in zip(parts, scaled_neurons(joined, ups, slopes, work).split(sizes), strict=True):
        part.addmm_(own, down)


def scaled_neurons(
    rows: Float[Tensor, "n D"],
    ups: Sequence[Float[Tensor, "F D"]],
    slopes: Sequence[Float[Tensor, "*n F"]],
    work: Workspace,
) -> Float[Tensor, "n F"]:
    """Return Σ_p slope_p ⊙ rows W_p, with slopes for each row, or the same for all."""
    shape = len(rows), len(ups[0])
    neurons = torch.mm(rows, ups[0].T, out=work("neurons", *shape)).mul_(slopes[0])
    for up, slope in zip(ups[1:], slopes[1:], strict=True):
        neurons.addcmul_(torch.mm(rows, up.T, out=work("gated neurons", *shape)), slope)
    return neurons


def places_together(places: Sequence[slice], max_rows: int) -> Iterator[list[slice]]:
    """Yield runs of slices that have at most `max_rows` rows together, or of one slice."""
    run: list[slice] = []
    count = 0
    for place in places:
        size = place.stop - place.start
        if run and count + size > max_rows:
            yield run
            run, count = [], 0
        run.append(place)
        count += size
    yield run


def slopes_at(
    target: int, neurons: Int[Tensor, " active"], frozen: FrozenBranch, work: Workspace
) -> list[Float[Tensor, " active"]]:
    """Return some neurons' scaled slopes at one target, for each input projection."""
    at = range(target, target + 1)
    return [scaled_slopes(at, frozen, number, work)[0, neurons] for number in range(len(frozen.mlp.slopes))]


def scaled_slopes(targets: range, frozen: FrozenBranch, number: int, work: Workspace) -> Float[Tensor, "targets F"]:
    """Return the slopes for one input projection, times the 1/σ of the norms around the MLP."""
    place = slice(targets.start, targets.stop)
    slope = frozen.mlp.slopes[number][place]
    for norm in (frozen.norm_in, frozen.norm_out):
        if norm is not None:
            slope = torch.mul(slope, norm.inverse_std[place, None], out=work("slope", *slope.shape))
    return slope
