"""Exact ΔLP of the strongest sources of one prediction, which a screen finds, and of all others together.

Since all other sources are carried as one, the cost does not grow with their number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.core.partition import Partition
from decomp.measures.registry import FUNCTION_NAMES, Measure
from decomp.measures.request import Request, ScoreFunction, Text
from decomp.measures.result import Scores
from decomp.measures.units import begun_before, kept_count

OTHERS = "<others>"
"""The name of the row of all sources that are not scored one by one: their score when all are taken away at once."""
REMAINDER = "<remainder>"

SCREEN = Measure(
    "screen",
    "contributions:screen",
    "two first-order scores of each source, by the slopes of the function and of the logit",
    "first order of Oh & Schuler 2023",
    "the function's, and logit",
    FUNCTION_NAMES,
    "log2_prob",
    together="targets",
    takes_groups=True,
)
"""The first-order scores by which the strongest sources are found; users can't ask for them as a measure."""


@dataclass(frozen=True)
class Division:
    """A division of a text's sources into those scored one by one and those scored together."""

    role: Int[Tensor, " S"]
    """For each source, the number of its group: itself, or the first of the sources that it is scored with."""
    others: int | None
    """The first source of the context that is not among the strongest; None where all are."""
    older: int | None
    """The first source that is older than the decomposition length; None where none is."""


def strongest(score: ScoreFunction, model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield for each text the scores of the `request.strongest` sources that the screen ranks first.

    `score` computes the exact scores: of these sources one by one, of all others together (row `<others>`), and of
    those older than the decomposition length (row `<remainder>`). The beginning-of-sequence token has a score besides.
    ValueError for a text with more than one prediction (token, word or span).
    """
    for text in texts:
        division = divided(text, screened(model, text, request), request)
        grouped = replace(text, sources=Partition.of(division.role[text.partition.labels]))
        alone = replace(request, strongest=None, decomposition_length=None)
        (whole,) = next(iter(score(model, [grouped], alone)))
        yield [in_source_columns(whole, grouped.partition, text.partition, division)]


def screened(model: Model, text: Text, request: Request) -> list[Scores]:
    """Return the scores of the screen for a text's only prediction. ValueError for a text with several."""
    alone = replace(request, strongest=None, extra=False, own=False)
    screens = next(iter(SCREEN(model, [text], alone)))
    if (count := len(screens[0].targets)) != 1:
        raise ValueError(
            f"the strongest sources are those of one prediction, and {text.place or 'the text'} has "
            f"{count}: give --target (targets=), or score all sources"
        )
    return screens


def divided(text: Text, screens: Sequence[Scores], request: Request) -> Division:
    """Return the division of a text's sources: those that the screens rank first one by one, others together.

    Sources that begin within the prediction, such as a span's own earlier tokens, are together, too.
    """
    assert request.strongest is not None
    target = screens[0].targets.start
    context = int(begun_before(text)[target])
    oldest = max(0, context - kept_count(text, request))
    candidates = torch.arange(max(oldest, int(text.has_bos)), context)
    sizes = [screen.scores[target].abs().cpu()[candidates] for screen in screens]
    others = candidates[~first_in_turn(sizes, request.strongest)]
    role = torch.arange(text.partition.count)
    role[context:] = context
    role[:oldest] = 0
    role[others] = others[:1]
    return Division(role, int(others[0]) if len(others) else None, 0 if oldest else None)


def first_in_turn(sizes: Sequence[Float[Tensor, " S"]], count: int) -> Bool[Tensor, " S"]:
    """Return a mask of the first `count` sources, taken from several rankings by size in turn."""
    rankings = [each.argsort(descending=True, stable=True) for each in sizes]
    named = dict.fromkeys(torch.stack(rankings, 1).flatten().tolist())
    chosen = torch.zeros(len(sizes[0]), dtype=torch.bool)
    chosen[list(named)[:count]] = True
    return chosen


def in_source_columns(whole: Scores, grouped: Partition, sources: Partition, division: Division) -> Scores:
    """Return the scores of the strongest in the columns of the text's own sources, and those of groups by name."""
    scores = whole.scores.new_zeros(len(whole.scores), sources.count)
    extra, carried = {n: values for n, values in whole.extra.items() if n != REMAINDER}, []
    for group, begin in enumerate(grouped.begins):
        source = int(division.role[sources.labels[begin]])
        if source == division.others:
            extra[OTHERS] = whole.scores[:, group]
        elif source == division.older:
            extra[REMAINDER] = whole.scores[:, group]
        else:
            scores[:, source] = whole.scores[:, group]
            carried.append(source)
    return replace(whole, scores=scores, extra=extra, carried=tuple(carried))
