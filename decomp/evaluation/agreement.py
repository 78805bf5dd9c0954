"""Agreement of measures: rank correlations of their scores over the sources of each prediction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from decomp.core.model import Model
from decomp.corpus.sources import Sources
from decomp.corpus.windows import TokenisedWindow
from decomp.measures import Measure, Request
from decomp.measures.result import Scores
from decomp.measures.windows import measure_windows
from decomp.tables import intervals
from decomp.tables.blocks import Block, block_of

COLUMNS = ("measure", "other_measure", "metric", "targets", *intervals.COLUMNS)
COMPUTED = (*COLUMNS[:3], "value")
"""The columns of what is computed for each target."""
Key = tuple[str, ...]
"""The names of two measures, and of the metric."""


class Agreement(NamedTuple):
    """The rank correlations of two measures' scores of the same sources, from −1 to 1."""

    spearman: float
    """Spearman's rank correlation."""
    kendall: float
    """Kendall's tau-b, which allows for ties."""


def agreement(first: Float[np.ndarray, " sources"], second: Float[np.ndarray, " sources"]) -> Agreement | None:
    """Return the rank correlations of two measures' scores of the same sources (Oh & Schuler 2023, section 5).

    None where there are no ranks to compare: for fewer than two sources, and for scores that are all equal. ValueError
    where scipy is not installed.

        >>> agreement(np.array([3.0, 2.0, 1.0]), np.array([5.0, 9.0, 1.0])).spearman
        0.5
    """
    try:
        from scipy.stats import kendalltau, spearmanr
    except ImportError as error:
        raise ValueError("rank correlations need scipy: install tokenwise-decomposition[evaluate]") from error
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return Agreement(float(spearmanr(first, second).statistic), float(kendalltau(first, second).statistic))


def agreements(scores: Sequence[Scores]) -> Iterator[tuple[Key, float]]:
    """Yield the metrics of each pair of measures on each target of a window that has ranks to compare.

    ValueError for the scores of a single measure, which has nothing to agree with.
    """
    if len(scores) < 2:
        raise ValueError(f"{scores[0].measure} alone has nothing to agree with: give --measure twice or more")
    for first, second in combinations(scores, 2):
        for target in first.targets:
            kept = first.sources(target)
            pair = (s.scores[target, kept.start : kept.stop].double().cpu().numpy() for s in (first, second))
            if (agreed := agreement(*pair)) is not None:
                for metric, value in agreed._asdict().items():
                    yield (first.measure, second.measure, metric), value


@dataclass(frozen=True)
class AgreementRows:
    """A function of windows: the rank correlations of measures on each of their targets."""

    measures: Sequence[Measure]
    request: Request
    sources: Sources | None = None

    def block(self, model: Model, windows: Sequence[TokenisedWindow]) -> Block:
        """Return the rank correlations on the targets of some windows, as rows with the columns `COMPUTED`."""
        each = measure_windows(model, windows, self.measures, self.request, len(windows), sources=self.sources)
        return block_of(COMPUTED, ((*key, value) for _, scores in each for key, value in agreements(scores)))


def refuse_none(found: dict[Key, list[float]]) -> dict[Key, list[float]]:
    """Return the correlations unchanged. ValueError where there are none, as no predicted token has ranks."""
    if not found:
        raise ValueError("nothing to compare: no predicted token has ranks, two sources or more with unequal scores")
    return found
