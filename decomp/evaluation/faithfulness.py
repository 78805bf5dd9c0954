"""Faithfulness of measures on a corpus: do predictions lose most without the sources that a measure ranks first?"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from operator import itemgetter

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from decomp.core.model import Model
from decomp.core.partition import Partition
from decomp.corpus.batches import in_batches
from decomp.corpus.sources import Sources
from decomp.corpus.windows import TokenisedWindow
from decomp.evaluation.curves import by_bin, perturbation_curves, rank_sources
from decomp.measures import Measure, Request
from decomp.measures.functions import AttributedFunction
from decomp.measures.result import Scores
from decomp.measures.windows import measure_windows, partition_of
from decomp.tables import intervals
from decomp.tables.blocks import Block, Row, block_of
from decomp.tables.work import Work, item_of, window_key

RANDOM = "<random>"
"""The name of random rankings."""
COLUMNS = ("measure", "removal", "metric", "fraction", "targets", *intervals.COLUMNS)
COMPUTED = (*COLUMNS[:4], "value")
"""The columns of what is computed for each target."""

MOST_TOGETHER = 16
"""The largest number of a window's targets evaluated together; after each such piece, results can be kept."""
Key = tuple[str, ...]
"""The names of the measure, the way of removing, the metric and the fraction."""
ChosenWindow = tuple[TokenisedWindow, list[int]]
"""A window, with its targets that are evaluated."""


@dataclass(frozen=True)
class Perturbation:
    """The options of perturbation: what replaces removed sources, and the function whose loss is measured."""

    replacements: Mapping[str, str | int]
    """The replacement of a source, by the name of the way of removing: `mask`, or the id of a token."""
    function: AttributedFunction
    """The attributed function whose loss is measured."""
    draws: int = 5
    """The number of random rankings of each target's sources."""
    seed: int = 0
    """The seed of random rankings and of bootstrap intervals."""


def choose_targets(
    windows: Sequence[TokenisedWindow],
    decomposition_length: int | None,
    count: int | None,
    seed: int,
    sources: Sources | None = None,
) -> list[ChosenWindow]:
    """Return the targets to evaluate: all that have several sources to rank, or `count` of them at random.

    They come with their windows, cut after the last target; a window with more than `MOST_TOGETHER` targets comes
    several times. ValueError where no target has sources to rank.
    """
    every = [
        (number, target)
        for number, window in enumerate(windows)
        for target, begun in begun_by_targets(window, sources)
        if begun > 1 and decomposition_length != 1
    ]
    if not every:
        raise ValueError("nothing to rank: no predicted token has two sources or more")
    drawn = every if count is None else sorted(random.Random(seed).sample(every, min(count, len(every))))
    by_window = {number: [target for _, target in group] for number, group in groupby(drawn, itemgetter(0))}
    pieces = [
        (number, targets[first : first + MOST_TOGETHER])
        for number, targets in by_window.items()
        for first in range(0, len(targets), MOST_TOGETHER)
    ]
    return [(only_targets(windows[number], targets), targets) for number, targets in pieces]


def begun_by_targets(window: TokenisedWindow, sources: Sources | None) -> Iterator[tuple[int, int]]:
    """Yield each target of a window with the number of sources that have begun by it."""
    partition = partition_of(window, sources) or Partition.tokens(len(window.ids))
    begun = partition.begun.tolist()
    return ((target, begun[target]) for target in window.window.targets)


def only_targets(tokenised: TokenisedWindow, targets: Sequence[int]) -> TokenisedWindow:
    """Return a window cut after the token that the last of the given targets predicts."""
    window = tokenised.window
    predicted = window.start - window.has_bos + 1
    return tokenised.cut(replace(window, first_scored=predicted + targets[0], stop=predicted + targets[-1] + 1))


@dataclass(frozen=True)
class FaithfulnessRows:
    """A function of chosen targets: their perturbation curves, for the rankings of measures and for random ones."""

    measures: Sequence[Measure]
    request: Request
    perturbation: Perturbation
    sources: Sources | None = None

    def block(self, model: Model, chosen: Sequence[ChosenWindow]) -> Block:
        """Return the curves of some windows' targets, as rows with the columns `COMPUTED`."""
        windows = [window for window, _ in chosen]
        each_scored = measure_windows(model, windows, self.measures, self.request, len(windows), sources=self.sources)
        rows = (self.rows(model, *scored, targets) for scored, (_, targets) in zip(each_scored, chosen, strict=True))
        return block_of(COMPUTED, chain.from_iterable(rows))

    def rows(
        self, model: Model, window: TokenisedWindow, scores: Sequence[Scores], targets: Sequence[int]
    ) -> Iterator[Row]:
        """Yield the loss of each target, for every ranking, way of removing, metric and fraction of sources."""
        ids, own, partition = window.ids.to(model.device), self.perturbation, partition_of(window, self.sources)
        labels = None if partition is None else partition.labels.to(model.device)
        for target in targets:
            ranked = rankings(scores, target, own.draws, self.generator(window, target))
            text = (ids[: target + 1], ids[target + 1])
            removed = None if labels is None else labels[: target + 1]
            for removal, replacement in own.replacements.items():
                memory = self.request.memory
                lost = perturbation_curves(model, *text, ranked, replacement, own.function, memory, removed)
                for (name, metric), curve in lost.items():
                    for fraction, value in by_bin(curve.double().cpu()).items():
                        yield name, removal, metric, fraction, value.item()

    def generator(self, window: TokenisedWindow, target: int) -> torch.Generator:
        """Return the random generator for one target's rankings, which does not depend on other targets."""
        place = (self.perturbation.seed, window.window.article, window.window.position(target))
        (seed,) = np.random.SeedSequence([part % 2**32 for part in place]).generate_state(1)
        return torch.Generator().manual_seed(int(seed))


def faithfulness_work(
    chosen: Sequence[ChosenWindow], rows: FaithfulnessRows, batch_size: int | None, positions: int
) -> Work[ChosenWindow]:
    """Return the computation of the table of faithfulness from chosen targets, `batch_size` windows together."""
    plan = []
    for window, targets in chosen:
        first, last = (window.window.position(target + 1) for target in (targets[0], targets[-1]))
        key = f"{window_key(window.window.article, window.window.number)}, positions {first} to {last}"
        plan.append(item_of(key, sum(target + 1 for target in targets)))
    batches = in_batches([len(window.ids) for window, _ in chosen], batch_size, positions)
    summary = FaithfulnessSummary(rows.perturbation.draws, rows.perturbation.seed)
    return Work("piece", chosen, plan, batches, rows.block, COMPUTED, summary)


def rankings(
    scores: Sequence[Scores], target: int, draws: int, generator: torch.Generator
) -> dict[str, Int[Tensor, " sources"]]:
    """Return rankings of the sources that are kept for a target by name: those of measures, and random ones."""
    kept = scores[0].sources(target)
    ranked = {s.measure: rank_sources(s.scores[target, kept.start : kept.stop]) for s in scores}
    device = scores[0].scores.device
    return ranked | {
        random_name(draw): torch.randperm(len(kept), generator=generator).to(device) for draw in range(draws)
    }


def random_name(draw: int) -> str:
    """Return the name of one random ranking."""
    return f"{RANDOM} {draw}"


@dataclass(frozen=True)
class FaithfulnessSummary:
    """The table of faithfulness: the mean curves of each measure, and at the end those of random rankings."""

    draws: int
    seed: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the table."""
        return COLUMNS

    def __call__(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the table made of all rows; intervals are by bootstrap over targets, for random rankings by draws."""
        found = intervals.gathered_rows(blocks)
        named = {key: values for key, values in found.items() if not key[0].startswith(RANDOM)}
        yield block_of(COLUMNS, chain(intervals.estimates(named, self.seed), self.random(found)))

    def random(self, found: Mapping[Key, Sequence[float]]) -> Iterator[Row]:
        """Yield the means of random rankings, with the interval that holds 95 % of the draws."""
        for name, *key in found:
            if name == random_name(0):
                every = np.array([found[(random_name(draw), *key)] for draw in range(self.draws)])
                means = every.mean(1)
                low, high = np.quantile(means, [0.025, 0.975])
                yield (RANDOM, *key, every.shape[1], float(means.mean()), float(low), float(high), self.seed)
