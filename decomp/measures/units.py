"""Words, and spans of several tokens or words, as the units that are predicted and taken away."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.engine import Chunk
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores

ROWS = 16384
"""Contributions that are summed at once, about."""

Rows = tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"], Float[Tensor, "pairs E"]]
"""Target, source unit and contribution of each pair, targets rising."""


def units_reached(text: Text, request: Request) -> int:
    """Return how many units back from the first one of a span, or from the single one, a source is kept at most."""
    return min(request.decomposition_length or text.units, text.units)


def tokens_reached(text: Text, request: Request) -> int:
    """Return the decomposition length, in tokens, that holds all tokens of the kept units of every target."""
    length = units_reached(text, request) + request.span - 1
    if text.words is None:
        return length
    first_token = torch.searchsorted(text.words, torch.arange(text.units, device=text.words.device))
    furthest = first_token[(next_words(text.words) - length).clamp(min=0, max=text.units - 1)]
    return int((torch.arange(len(text.words), device=furthest.device) - furthest).max()) + 1


def targets_covered(text: Text, reach: int) -> int:
    """Return how many targets, from the first, have no source of more than `reach` units back."""
    return reach if text.words is None else int((next_words(text.words) <= reach).sum())


def next_words(words: Int[Tensor, " T"]) -> Int[Tensor, " T"]:
    """Return the word of the token that each target predicts; a new one after the last."""
    return torch.cat([words[1:], words[-1:] + 1])


class WordSums:
    """Contributions of whole words: sums over their tokens, of which two chunks may have a part each."""

    def __init__(self, words: Int[Tensor, " T"], reach: int) -> None:
        self.words, self.next_words, self.reach = words, next_words(words), reach
        self.parted: dict[int, Float[Tensor, "T E"]] = {}
        """Words that the chunks so far did not end, for every target."""

    def add(self, chunk: Chunk) -> Iterator[Rows]:
        """Yield the words that are complete with this chunk, for the targets that they reach."""
        targets, sources = chunk.pairs()
        words, count = self.words[sources], int(self.words[-1]) + 1
        last, *after = self.words[chunk.sources.stop - 1 : chunk.sources.stop + 1].tolist()
        apart = {*self.parted, *(after if after == [last] else ())}
        for part in whole_targets(targets, ROWS):
            pairs, place = torch.unique_consecutive(targets[part] * count + words[part], return_inverse=True)
            rows = chunk.rows.new_zeros(len(pairs), chunk.rows.shape[-1]).index_add_(0, place, chunk.rows[part])
            for word in apart:
                here = pairs % count == word
                self.keep(word, pairs[here] // count, rows[here])
                pairs, rows = pairs[~here], rows[~here]
            yield self.reaching(pairs // count, pairs % count, rows)
        for word in apart.difference(after):
            rows = self.parted.pop(word)
            targets = torch.arange(int(torch.searchsorted(self.words, word)), len(rows), device=rows.device)
            yield self.reaching(targets, torch.full_like(targets, word), rows[targets])

    def keep(self, word: int, targets: Int[Tensor, " pairs"], rows: Float[Tensor, "pairs E"]) -> None:
        """Add rows to those of a word that later chunks go on with."""
        if word not in self.parted:
            self.parted[word] = rows.new_zeros(len(self.words), rows.shape[-1])
        self.parted[word].index_add_(0, targets, rows)

    def reaching(self, targets: Int[Tensor, " pairs"], words: Int[Tensor, " pairs"], rows: Tensor) -> Rows:
        """Return pairs no more words apart than are kept; nearer than that, all tokens of a word are."""
        near = self.next_words[targets] - words <= self.reach
        return targets[near], words[near], rows[near]


def whole_targets(targets: Int[Tensor, " pairs"], rows: int) -> Iterator[slice]:
    """Yield slices of about so many pairs (targets rising), none of which parts a target."""
    start = 0
    while start < len(targets):
        last = min(start + rows, len(targets)) - 1
        stop = int(torch.searchsorted(targets, targets[last], right=True))
        yield slice(start, stop)
        start = stop


def in_units(result: Scores, text: Text, request: Request, *, sum_sources: bool, additive: bool) -> Scores:
    """Return scores of single tokens as those that were asked for: of words and spans, over the kept sources.

    Targets are summed by the chain rule: log probabilities add up, and so do their changes. `sum_sources`: the
    scores still have tokens for sources, to be summed by word. `additive`: sums of scores are scores of sums, so that
    there are rows that are no token (`<own>`, `<remainder>`) where these are asked for.
    """
    with_rows = bool(result.extra) or (additive and request.extra)
    if text.words is not None:
        result = by_word(sources_by_word(result, text.words) if sum_sources else result, text.words)
    if request.span > 1:
        result = by_span(result, request.span)
    if text.words is not None or request.span > 1:
        result = apart_from_own(result, request.own or with_rows)
    return kept_sources(result, text, request, with_rows)


def kept_sources(result: Scores, text: Text, request: Request, with_rows: bool) -> Scores:
    """Return scores over the most recent sources that are kept; `with_rows`, those of older ones as `<remainder>`.

    Measures may leave out older sources themselves, and give what they are together.
    """
    reach = units_reached(text, request)
    if reach >= text.units:
        return replace(result, decomposition_length=reach)
    extra = dict(result.extra)
    if with_rows:
        extra["<remainder>"] = extra.get("<remainder>", 0) + result.scores.tril(-reach).sum(1)
    return replace(result, decomposition_length=reach, scores=result.scores.triu(1 - reach), extra=extra)


def apart_from_own(result: Scores, wanted: bool) -> Scores:
    """Return scores whose sources come before the predicted word or span: what is within it is no context.

    It goes to `<own>` where that is wanted.
    """
    before = result.scores.tril()
    own = {"<own>": (result.scores - before).sum(1)} if wanted else {}
    return replace(result, scores=before, extra={**result.extra, **own})


def sources_by_word(result: Scores, words: Int[Tensor, " T"]) -> Scores:
    """Return scores whose sources are words: the sums over their tokens."""
    sums = result.scores.new_zeros(len(result.scores), int(words[-1]) + 1)
    return replace(result, scores=sums.index_add_(1, words, result.scores))


def by_word(result: Scores, words: Int[Tensor, " T"]) -> Scores:
    """Return scores whose targets are words, summed over tokens; a word counts if all of its tokens are predicted."""
    predicted, count = words[1:], int(words[-1])
    inside = predicted > 0

    def summed(values: Tensor) -> Tensor:
        total = values.new_zeros(count, *values.shape[1:])
        return total.index_add_(0, predicted[inside] - 1, values[inside])

    return replace(
        result,
        targets=words_predicted(result.targets, words),
        log2_prob=summed(result.log2_prob),
        scores=summed(result.scores),
        extra={name: summed(values) for name, values in result.extra.items()},
    )


def words_predicted(targets: range, words: Int[Tensor, " T"]) -> range:
    """Return the words (less one, as a target stands before what it predicts) whose tokens are all predicted."""
    if not targets:
        return targets
    first, last = targets.start + 1, targets.stop
    begin, end = int(words[first]), int(words[last])
    begin += int(words[first - 1]) == begin
    end -= words[last + 1 : last + 2].tolist() == [end]
    return range(begin - 1, end)


def by_span(result: Scores, span: int) -> Scores:
    """Return scores whose targets are summed with the `span` − 1 after them."""

    def summed(values: Tensor) -> Tensor:
        return values.unfold(0, span, 1).sum(-1) if len(values) >= span else values[:0]

    total = summed(result.scores)
    return replace(
        result,
        targets=range(result.targets.start, max(result.targets.start, min(result.targets.stop, len(total)))),
        log2_prob=summed(result.log2_prob),
        scores=total,
        extra={name: summed(values) for name, values in result.extra.items()},
    )
