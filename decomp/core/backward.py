"""The way back: linear functions of final hidden states turned into linear functions of the embeddings.

`pull` goes back through the frozen network: the transpose of what carries contributions. `differentiate` goes
back through the real one: what `torch.autograd` gives for each target on its prefix. Rows are (readout,
position ≤ target); all readouts of a group meet each weight in one matrix product.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.network import Network
from decomp.core.operating_point import FrozenBranch, FrozenStage, OperatingPoint, mask_bytes
from decomp.core.operators import FrozenNorm
from decomp.core.operators.attention import TARGET_BLOCK
from decomp.core.readout_rows import BiasShares, ReadoutRows
from decomp.io.amounts import format_bytes

Verb = Literal["pull", "differentiate"]

GROUP_ROWS = 1024
"""The number of (readout, position) rows that go through the network together; one readout may have more."""


def through_norm(
    norm: FrozenNorm | None, verb: Verb, g: Float[Tensor, "rows D"], at: ReadoutRows, shares: BiasShares | None
) -> Float[Tensor, "rows D"]:
    """Return readouts of a norm's output turned into readouts of its input."""
    if norm is None:
        return g
    return norm.pull(g, at, shares) if verb == "pull" else norm.differentiate(g, at)


def through_branch(
    branch: FrozenBranch,
    verb: Verb,
    g: Float[Tensor, "rows D"],
    at: ReadoutRows,
    x: Float[Tensor, "T D"] | None,
    shares: BiasShares | None,
) -> tuple[Float[Tensor, "rows_below D"], ReadoutRows]:
    """Return readouts of a branch's output turned into readouts of the stream it reads, and which rows these are.

    `x`: the operator's real input, which `differentiate` needs.
    """
    g = through_norm(branch.norm_out, verb, g, at, shares)
    if verb == "pull":
        inner = branch.operator.pull(g, at, shares)
    else:
        assert x is not None
        inner = branch.operator.differentiate(g, at, x)
    below = at.all_positions() if branch.operator.mixes_positions else at
    return through_norm(branch.norm_in, verb, inner, below, shares), below


@dataclass(frozen=True)
class StageInputs:
    """A frozen stage with the real input of each of its operators, which gradients need."""

    stage: FrozenStage
    inputs: tuple[Float[Tensor, "T D"] | None, ...]

    def back(
        self, verb: Verb, g: Float[Tensor, "rows D"], at: ReadoutRows, shares: BiasShares | None
    ) -> tuple[Float[Tensor, "rows_below D"], ReadoutRows]:
        """Return readouts of the stream after the stage as readouts of the one before, and which rows these are."""
        g = through_norm(self.stage.norm, verb, g, at, shares)
        mixes = any(branch.operator.mixes_positions for branch in self.stage.branches)
        below = at.all_positions() if mixes else at
        total = g.new_zeros(len(below.positions), g.shape[1]) if below is not at else torch.zeros_like(g)
        total[slice(None) if below is at else below.last] += g
        for branch, x in zip(self.stage.branches, self.inputs, strict=True):
            inner, rows = through_branch(branch, verb, g, at, x, shares)
            total[slice(None) if rows.own == below.own else below.last] += inner
        return total, below


def real_inputs(point: OperatingPoint) -> Iterator[tuple[Float[Tensor, "T D"], ...]]:
    """Yield for each stage the real inputs of its operators, from the standardised states that norms have kept.

    ValueError for an operator whose input can't be computed from any norm's states.
    """
    x: Tensor | None = point.embedding
    for stage in (stage for block in point.blocks for stage in block):
        yield tuple(stream_input(x) if b.norm_in is None else normed_input(b.norm_in) for b in stage.branches)
        x = stream_after(stage, x)


def stream_after(stage: FrozenStage, x: Float[Tensor, "T D"] | None) -> Float[Tensor, "T D"] | None:
    """Return the real stream after a stage; None where no norm of the stage has kept states to compute it from."""
    if stage.norm is not None:
        return normed_input(stage.norm)
    for branch in stage.branches:
        x = None if x is None or branch.norm_out is None else x + normed_input(branch.norm_out)
    return x


def stream_input(x: Float[Tensor, "T D"] | None) -> Float[Tensor, "T D"]:
    """Return the real stream x. ValueError where it is None, that is not known."""
    if x is None:
        raise ValueError("gradients need a norm before an attention or MLP, or norms after all that come before it")
    return x


def normed_input(norm: FrozenNorm) -> Float[Tensor, "T D"]:
    """Return a norm's real output γ ⊙ x̂ + β, from the standardised states x̂ that it has kept."""
    assert norm.standardised is not None
    return norm.norm.scale(norm.standardised, with_bias=True)


def holding_rows(branch: FrozenBranch, length: int) -> FrozenBranch:
    """Return the branch with its attention weights, if it has some, held in memory instead of computed at every use."""
    return replace(branch, operator=branch.operator.holding_rows(length))


class Backward:
    """A way back through the network of one text: frozen for the verb `pull`, real for `differentiate`."""

    def __init__(self, network: Network, point: OperatingPoint, verb: Verb, memory: int) -> None:
        """Prepare the way back; attention weights are held if they fit into a quarter of `memory` bytes.

        Otherwise they are computed for each group of targets. The verb `differentiate` needs a point that was recorded
        for gradients.
        """
        self.network, self.point, self.verb = network, point, verb
        length, itemsize = len(point), point.embedding.element_size()
        heads = sum(operator.heads for operator in network.operators)
        keep = heads * length**2 * itemsize <= memory // 4
        stages = [stage for block in point.blocks for stage in block]
        if keep:
            stages = [replace(s, branches=tuple(holding_rows(b, length) for b in s.branches)) for s in stages]
        if verb == "differentiate":
            inputs: Sequence[tuple[Tensor | None, ...]] = list(real_inputs(point))
        else:
            inputs = [(None,) * len(stage.branches) for stage in stages]
        self.stages = [StageInputs(*pair) for pair in zip(stages, inputs, strict=True)]

    def __call__(
        self, g: Float[Tensor, "N E"], targets: Sequence[int], shares: BiasShares | None = None
    ) -> Float[Tensor, "N P D"]:
        """Return readouts of the targets' hidden states turned into readouts of the embeddings up to the last target.

        The result is zero after a readout's own target. Under the verb `pull`, its scalar product with a source's
        embedding is the readout of that source's contribution, and the readout of the bias is added to `shares`.
        """
        rows, at = self.back(g, ReadoutRows(tuple(targets), True, g.device), shares)
        return at.pad(rows) if not at.own else self.at_targets(rows, at)

    def of_states(self, g: Float[Tensor, "P E"], shares: BiasShares | None = None) -> Float[Tensor, "P D"]:
        """Return one readout of several hidden states, a row of `g` each, turned into a readout of the embeddings.

        It is the sum of the readouts of the single states, and costs as much as that of the last state alone.
        """
        rows, _ = self.back(g, ReadoutRows((len(g) - 1,), False, g.device), shares)
        return rows

    def back(
        self, rows: Float[Tensor, "rows E"], at: ReadoutRows, shares: BiasShares | None
    ) -> tuple[Float[Tensor, "rows_below D"], ReadoutRows]:
        """Return readouts of hidden states turned into readouts of the embeddings, and which rows these are."""
        if self.point.project_out is not None:
            if shares is not None:
                shares.add(rows, self.point.project_out.bias, at)
            rows = rows @ self.point.project_out.weight.T
        rows = through_norm(self.point.final_norm, self.verb, rows, at, shares)
        for stage in reversed(self.stages):
            rows, at = stage.back(self.verb, rows, at, shares)
        return rows, at

    def at_targets(self, rows: Float[Tensor, "N D"], at: ReadoutRows) -> Float[Tensor, "N P D"]:
        """Return readouts of single positions as a rectangle over positions, zero but at their targets."""
        padded = rows.new_zeros(len(rows), at.stop, rows.shape[1])
        padded[torch.arange(len(rows), device=rows.device), at.last_positions] = rows
        return padded

    def groups(self, targets: range, memory: int) -> Iterator[range]:
        """Yield ranges of targets that fit into `memory` bytes together. ValueError if one alone does not fit."""
        start = stop = targets.start
        while start < targets.stop:
            stop += 1
            if self.bytes_needed(start, stop) > memory:
                raise ValueError(
                    f"the way back from one target with {stop} positions needs "
                    f"{format_bytes(self.bytes_needed(start, stop))}, {format_bytes(max(memory, 0))} are left: "
                    "allow more memory or use a shorter context"
                )
            while stop < targets.stop and self.fit_together(start, stop + 1, memory):
                stop += 1
            yield range(start, stop)
            start = stop

    def fit_together(self, start: int, stop: int, memory: int) -> bool:
        """Return whether the targets [start, stop) go through the network together."""
        return rows_of(start, stop) <= GROUP_ROWS and self.bytes_needed(start, stop) <= memory

    def bytes_held(self) -> int:
        """Return the bytes, beside the model's weights, that this object holds as long as it lives."""
        given = {x.data_ptr(): x for stage in self.stages for x in stage.inputs if x is not None}
        inputs = sum(x.numel() * x.element_size() for x in given.values())
        branches = [branch for stage in self.stages for branch in stage.stage.branches]
        return inputs + sum(branch.nbytes for branch in branches) + mask_bytes(branches)

    def bytes_needed(self, start: int, stop: int) -> int:
        """Return the bytes that the way back of the targets [start, stop) needs in all."""
        network, hidden = self.network, self.point.embedding.shape[1]
        # Rows with their neurons, or with queries, keys and values; in rectangles these again, and the scores: of a
        # strip of targets for all readouts, or where the weights have gradients, of all targets for each readout.
        row = 4 * hidden + network.gathered + max((network.inputs + 1) * network.neurons, 4 * network.width)
        strip = max(stop - start, min(stop, TARGET_BLOCK))
        scored = strip if self.verb == "pull" else (stop - start + 1) * stop
        padded = 2 * hidden + 6 * network.width
        numbers = rows_of(start, stop) * row + (stop - start) * stop * padded + 4 * network.heads * stop * scored
        return self.point.embedding.element_size() * numbers


def rows_of(start: int, stop: int) -> int:
    """Return the number of (target, position ≤ target) pairs of the targets [start, stop)."""
    return (stop - start) * (start + 1 + stop) // 2
