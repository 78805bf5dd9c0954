"""Faithfulness of measures on a corpus: do predictions rest on the sources that a measure ranks first?"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.corpus.windows import TokenisedWindow
from decomp.evaluation.curves import by_bin, perturbation_curves, rank_sources
from decomp.measures import Measure, Request
from decomp.measures.functions import AttributedFunction
from decomp.measures.result import Scores
from decomp.measures.windows import measure_windows
from decomp.tables import intervals
from decomp.tables.blocks import Row

RANDOM = "<random>"
"""Rankings that know nothing."""
COLUMNS = ("measure", "removal", "metric", "fraction", "targets", *intervals.COLUMNS)

Key = tuple[str, ...]
"""Measure, removal, metric."""
Chosen = list[tuple[TokenisedWindow, list[int]]]
"""Windows, and the targets in each that are evaluated."""


@dataclass(frozen=True)
class Perturbation:
    """How sources are removed, and what a prediction loses with them."""

    replacements: Mapping[str, str | int]
    """By the name of the removal what takes a source's place: `mask`, or the id of a token."""
    function: AttributedFunction
    draws: int = 5
    """Random rankings of each target's sources."""
    seed: int = 0


def choose_targets(
    windows: Sequence[TokenisedWindow], decomposition_length: int | None, count: int | None, seed: int
) -> Chosen:
    """Return windows cut to what their targets need, and these: all that have sources to rank, or `count` at random.

    ValueError if there are none.
    """
    every = [
        (number, target)
        for number, window in enumerate(windows)
        for target in window.window.targets
        if target > 0 and decomposition_length != 1
    ]
    if not every:
        raise ValueError("nothing to rank: no predicted token has two sources or more")
    drawn = every if count is None else sorted(random.Random(seed).sample(every, min(count, len(every))))
    by_window = {number: [target for _, target in group] for number, group in groupby(drawn, itemgetter(0))}
    return [(only_targets(windows[number], targets), targets) for number, targets in by_window.items()]


def only_targets(tokenised: TokenisedWindow, targets: Sequence[int]) -> TokenisedWindow:
    """Return as much of a window as its targets need."""
    window = tokenised.window
    predicted = window.start - window.has_bos + 1
    return tokenised.cut(replace(window, first_scored=predicted + targets[0], stop=predicted + targets[-1] + 1))


def curves_of_targets(
    model: Model,
    chosen: Chosen,
    measures: Sequence[Measure],
    request: Request,
    perturbation: Perturbation,
    batch_size: int | None = None,
) -> Iterator[list[tuple[Key, Float[Tensor, " bins"]]]]:
    """Yield for each target the perturbation curve of every measure and random ranking, removal and metric."""
    generator = torch.Generator().manual_seed(perturbation.seed)
    each_scored = measure_windows(model, [window for window, _ in chosen], measures, request, batch_size)
    for (window, scores), (_, targets) in zip(each_scored, chosen, strict=True):
        ids = window.ids.to(model.device)
        for target in targets:
            ranked = rankings(scores, target, perturbation.draws, generator)
            curves: list[tuple[Key, Tensor]] = []
            for removal, replacement in perturbation.replacements.items():
                lost = perturbation_curves(
                    model,
                    ids[: target + 1],
                    ids[target + 1],
                    ranked,
                    replacement,
                    perturbation.function,
                    request.memory,
                )
                curves += [((name, removal, metric), c.double().cpu()) for (name, metric), c in lost.items()]
            yield curves


def rankings(
    scores: Sequence[Scores], target: int, draws: int, generator: torch.Generator
) -> dict[str, Int[Tensor, " sources"]]:
    """Return rankings of the sources that are kept for a target: each measure's, and random ones."""
    kept = scores[0].sources(target)
    ranked = {s.measure: rank_sources(s.scores[target, kept.start : kept.stop]) for s in scores}
    device = scores[0].scores.device
    return ranked | {drawn(draw): torch.randperm(len(kept), generator=generator).to(device) for draw in range(draws)}


def drawn(draw: int) -> str:
    """Return the name of one random ranking."""
    return f"{RANDOM} {draw}"


def summary(curves: Mapping[Key, Sequence[Float[Tensor, " bins"]]], draws: int, seed: int) -> Iterator[Row]:
    """Yield rows of `COLUMNS`: each measure's mean curves, and at the end those of random rankings.

    The intervals of measures are over targets (bootstrap), those of random rankings over draws.
    """
    stacked = {key: torch.stack(list(each)) for key, each in curves.items()}
    for key, curve in stacked.items():
        if not key[0].startswith(RANDOM):
            named = {(*key, name): values.tolist() for name, values in by_bin(curve).items()}
            yield from intervals.estimates(named, seed)
    for name, removal, metric in stacked:
        if name == drawn(0):
            every = torch.stack([stacked[drawn(draw), removal, metric] for draw in range(draws)])
            for fraction, values in by_bin(every.mean(1)).items():
                low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
                yield (RANDOM, removal, metric, fraction, every.shape[1], values.mean().item(), low, high, seed)
