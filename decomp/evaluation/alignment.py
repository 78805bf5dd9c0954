"""Alignment of measures with known evidence: how well scores single it out (Yin & Neubig 2022, section 4)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from decomp.core.model import Model
from decomp.corpus.batches import in_batches
from decomp.measures import Measure, Request
from decomp.measures.contrast import Contrast, log2_odds, prompt_scores, scored
from decomp.measures.result import Scores
from decomp.tables import intervals
from decomp.tables.blocks import Block, block_of
from decomp.tables.work import Work, item_of

MODEL, RANDOM = "<model>", "<random>"
"""The names of two rows of metrics beside those of measures: the model itself, and scores in random order."""
EVERY = "<all>"
"""The name for items of all phenomena together."""
COLUMNS = ("phenomenon", "measure", "metric", "items", *intervals.COLUMNS)
COMPUTED = (*COLUMNS[:3], "value")
"""The columns of what is computed for each item."""
Key = tuple[str, ...]
"""The names of the phenomenon, the measure and the metric."""


class Alignment(NamedTuple):
    """The metrics of how well one measure's scores single out the evidence of one item."""

    dot_product: float
    """The sum of the evidence's scores, where scores are scaled so that their absolute values add up to 1."""
    probes_needed: float
    """The number of tokens that are not evidence and have higher scores than any that is."""
    reciprocal_rank: float
    """1 / rank of the highest token that is evidence; the mean over items is the mean reciprocal rank."""


def alignment(scores: Float[np.ndarray, " tokens"], evidence: Bool[np.ndarray, " tokens"]) -> Alignment:
    """Return the metrics of how well scores single out the evidence; they keep their sign, the highest come first.

    Equal scores count by the expectation over their random order. ValueError where no token is evidence.

        >>> alignment(np.array([0.25, 0.5, -0.25]), np.array([True, False, False]))
        Alignment(dot_product=0.25, probes_needed=1.0, reciprocal_rank=0.5)
    """
    if not evidence.any():
        raise ValueError("alignment needs at least one token that is evidence")
    best, others = scores[evidence].max(), scores[~evidence]
    above, tied_others = int((others > best).sum()), int((others == best).sum())
    tied_evidence = int((scores[evidence] == best).sum())
    orders = comb(tied_others + tied_evidence, tied_evidence)
    # Of the orders of the equals, those with `passed` others in front of the first evidence.
    reciprocal_rank = sum(
        comb(tied_others - passed + tied_evidence - 1, tied_evidence - 1) / orders / (above + passed + 1)
        for passed in range(tied_others + 1)
    )
    total = np.abs(scores).sum()
    return Alignment(
        float(scores[evidence].sum() / total) if total > 0 else 0.0,
        above + tied_others / (tied_evidence + 1),
        reciprocal_rank,
    )


def random_alignment(evidence: Bool[np.ndarray, " tokens"]) -> Alignment:
    """Return the metrics expected of scores in random order, which are those of equal scores."""
    return alignment(np.ones(len(evidence)), evidence)


def alignments(
    model: Model, contrast: Contrast, scores: Sequence[Scores], decomposition_length: int | None
) -> Iterator[tuple[Key, float]]:
    """Yield the metrics of one item for its phenomenon and for all together: of the model, each measure, and at random.

    All are over the prompt's tokens that the decomposition length keeps.
    """
    item = contrast.item
    evidence = np.isin(contrast.prompt_tokens(decomposition_length), item.evidence)
    aligned = {s.measure: alignment(prompt_scores(contrast, s), evidence) for s in scores}
    preferred = float(log2_odds(model, contrast) > 0)
    for phenomenon in (item.item.phenomenon, EVERY):
        yield (phenomenon, MODEL, "prefers_target"), preferred
        for name, metrics in {**aligned, RANDOM: random_alignment(evidence)}.items():
            for metric, value in metrics._asdict().items():
                yield (phenomenon, name, metric), value


def by_phenomenon(found: dict[Key, list[float]]) -> dict[Key, list[float]]:
    """Return the values phenomenon by phenomenon, with those of all together last if there are several."""
    several = len({phenomenon for phenomenon, *_ in found}) > 2
    keys = sorted(found, key=lambda key: (key[0] == EVERY, key[0]))
    return {key: found[key] for key in keys if several or key[0] != EVERY}


@dataclass(frozen=True)
class AlignmentRows:
    """A function of contrast items: the metrics of measures on each of them."""

    requests: Sequence[tuple[Measure, Request]]
    decomposition_length: int | None

    def block(self, model: Model, contrasts: Sequence[Contrast]) -> Block:
        """Return the metrics of some items, as rows with the columns `COMPUTED`."""
        own = [contrast.on(model.device) for contrast in contrasts]
        rows = (
            (*key, value)
            for contrast, scores in scored(model, own, self.requests, len(own))
            for key, value in alignments(model, contrast, scores, self.decomposition_length)
        )
        return block_of(COMPUTED, rows)


def alignment_work(contrasts: Sequence[Contrast], rows: AlignmentRows, batch_size: int, seed: int) -> Work[Contrast]:
    """Return the computation of the table of alignment from contrast items, `batch_size` of them together."""
    plan = [item_of(contrast.item.item.place, contrast.context) for contrast in contrasts]
    batches = in_batches([item.tokens for item in plan], batch_size, 0)
    summary = intervals.MeanTable(COLUMNS, seed, by_phenomenon)
    return Work("item", contrasts, plan, batches, rows.block, COMPUTED, summary)
