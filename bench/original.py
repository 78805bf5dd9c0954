"""The original algorithm, written plainly: the full rectangle, one source row at a time, norms elementwise.

It is here for comparison, and computes the same as the engine.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from decomp.core.ablation import Unembedding
from decomp.core.operating_point import FrozenBranch, FrozenStage, OperatingPoint
from decomp.core.operators import FrozenNorm


def reached(source: int, length: int, kept: int) -> slice:
    """Return the targets that a source reaches: all, or with a shorter decomposition length those that keep it."""
    return slice(0, length) if kept >= length else slice(source, min(source + kept, length))


def normalised(row: Tensor, targets: slice, norm: FrozenNorm | None) -> Tensor:
    """Return contributions through the linear part of a frozen norm, if there is one."""
    if norm is None:
        return row
    return norm.norm.scale(norm.norm.standardise(row, norm.inverse_std[targets]), with_bias=False)


def branch_output(row: Tensor, targets: slice, branch: FrozenBranch, weights: Tensor | None) -> Tensor:
    """Return what a branch makes of the contributions of one source: attention with its weights, or an MLP."""
    inner = normalised(row, targets, branch.norm_in)
    if weights is not None:
        values = branch.attention.values(inner, with_bias=False)
        mixed = (weights[:, targets, targets] @ values).transpose(0, 1).reshape(len(inner), -1)
        output = mixed @ branch.attention.attention.output.weight
    else:
        mlp = branch.mlp
        pairs = zip(mlp.mlp.inputs, mlp.slopes, strict=False)
        neurons = sum(slope[targets] * (inner @ up.weight) for up, slope in pairs)
        output = neurons @ mlp.mlp.output.weight
    return normalised(output, targets, branch.norm_out)


def step(row: Tensor, targets: slice, stage: FrozenStage, weights: list[Tensor | None]) -> Tensor:
    """Return the contributions of one source after a stage: added to the outputs of its branches, normalised."""
    outputs = [branch_output(row, targets, *pair) for pair in zip(stage.branches, weights, strict=True)]
    return normalised(row + sum(outputs), targets, stage.norm)


@torch.no_grad()
def propagate(point: OperatingPoint, kept: int, after_stage: Callable[[], None] = lambda: None) -> list[Tensor]:
    """Return, for each source, its contributions to the targets that it reaches, before the final norm."""
    length = len(point)
    rows = []
    for source in range(length):
        targets = reached(source, length, kept)
        row = torch.zeros(targets.stop - targets.start, point.embedding.shape[1])
        row[source - targets.start] = point.embedding[source]
        rows.append(row)
    for stage in (stage for block in point.blocks for stage in block):
        weights = [b.attention.rows(0, length) if b.operator.mixes_positions else None for b in stage.branches]
        for source in range(length):
            rows[source] = step(rows[source], reached(source, length, kept), stage, weights)
        after_stage()
    return rows


def delta_lp(
    contributions: Iterator[Tensor], hidden: Tensor, next_ids: Tensor, unembedding: Unembedding
) -> list[Tensor]:
    """Return, for each target, the log2 probabilities without each source, from the logits of the whole vocabulary."""
    results = []
    for target, (vectors, y) in enumerate(zip(contributions, next_ids, strict=False)):
        logits = (hidden[target] - vectors) @ unembedding.weight.T
        results.append(torch.log2(torch.softmax(logits, -1))[:, y])
    return results
