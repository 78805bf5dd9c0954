"""ΔLP of the strongest sources of one prediction alone: a screen finds them, and they are carried exactly.

The rest of the context is one source too, so that few streams are carried whatever the text's length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from decomp.core.model import Model
from decomp.core.partition import Partition
from decomp.measures.registry import find_measure
from decomp.measures.request import Request, ScoreFunction, Text
from decomp.measures.result import Scores
from decomp.measures.units import begun_before, kept_count

OTHERS = "<others>"
"""The row of all sources that are not carried one by one: what goes when all of them are taken away at once."""
REMAINDER = "<remainder>"


@dataclass(frozen=True)
class Division:
    """Which sources of a text are carried one by one, and which together."""

    role: Int[Tensor, " S"]
    """Per source the one that it is carried with: itself, or the first of those that are carried together."""
    others: int | None
    """The first source of the context that is not among the strongest, None where all are."""
    older: int | None
    """The first source that is older than the decomposition length, None where there is none."""


def strongest(score: ScoreFunction, model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield for each text the scores of the `request.strongest` sources whose first-order scores are the largest.

    `score` gives exact scores of any sources: of these, of all others together (`<others>`), and of those that are
    older than the decomposition length (`<remainder>`). The beginning of sequence has a score of its own beside them.
    ValueError for a text with more than one prediction (token, word or span).
    """
    for text in texts:
        division = divided(text, first_order_screen(model, text, request), request)
        grouped = replace(text, sources=Partition.of(division.role[text.partition.labels]))
        alone = replace(request, strongest=None, decomposition_length=None)
        (whole,) = next(iter(score(model, [grouped], alone)))
        yield [in_place(whole, grouped.partition, text.partition, division)]


def first_order_screen(model: Model, text: Text, request: Request) -> Scores:
    """Return the first-order scores of a text's one prediction. ValueError where it has several."""
    asked = replace(request, strongest=None, extra=False, own=False)
    (screen,) = next(iter(find_measure("first_order")(model, [text], asked)))
    if len(screen.targets) != 1:
        raise ValueError(
            f"the strongest sources are those of one prediction, and {text.place or 'the text'} has "
            f"{len(screen.targets)}: give --target (targets=), or score all sources"
        )
    return screen


def divided(text: Text, screen: Scores, request: Request) -> Division:
    """Return the sources with the largest first-order scores, apart from all others of the context.

    Those that begin within the prediction, a span's own tokens, are carried together too.
    """
    target = screen.targets.start
    context = int(begun_before(text)[target])
    oldest = max(0, context - kept_count(text, request))
    candidates = torch.arange(max(oldest, int(text.has_bos)), context)
    sizes = screen.scores[target].abs().cpu()[candidates]
    others = candidates[sizes.argsort(descending=True, stable=True)][request.strongest :].sort().values
    role = torch.arange(text.partition.count)
    role[context:] = context
    role[:oldest] = 0
    role[others] = others[:1]
    return Division(role, int(others[0]) if len(others) else None, 0 if oldest else None)


def in_place(whole: Scores, grouped: Partition, sources: Partition, division: Division) -> Scores:
    """Return the scores of the strongest in a text's own columns, those of groups as rows that are no token."""
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
