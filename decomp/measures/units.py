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
    """How many units back from the first one of a span, or from the single one, a source is kept at most."""
    return min(request.decomposition_length or text.units, text.units)


def tokens_reached(text: Text, request: Request) -> int:
    """The decomposition length, in tokens, that holds all tokens of the kept units of every target."""
    length = units_reached(text, request) + request.span - 1
    if text.words is None:
        return length
    first_token = torch.searchsorted(text.words, torch.arange(text.units, device=text.words.device))
    furthest = first_token[(next_words(text.words) - length).clamp(min=0, max=text.units - 1)]
    return int((torch.arange(len(text.words), device=furthest.device) - furthest).max()) + 1


def targets_covered(text: Text, reach: int) -> int:
    """How many targets, from the first, have no source of more than `reach` units back."""
    return reach if text.words is None else int((next_words(text.words) <= reach).sum())


def next_words(words: Int[Tensor, " T"]) -> Int[Tensor, " T"]:
    """The word of the token that each target predicts; a new one after the last."""
    return torch.cat([words[1:], words[-1:] + 1])


class WordSums:
    """Contributions of whole words: the sums over their tokens, of which two chunks may have a part each."""

    def __init__(self, words: Int[Tensor, " T"], reach: int) -> None:
        self.words, self.next_words, self.reach = words, next_words(words), reach
        self.parted: dict[int, Float[Tensor, "T E"]] = {}
        """Words that the chunks so far did not end, for every target."""

    def add(self, chunk: Chunk) -> Iterator[Rows]:
        """The words that are complete with this chunk, for the targets that they reach."""
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
        if word not in self.parted:
            self.parted[word] = rows.new_zeros(len(self.words), rows.shape[-1])
        self.parted[word].index_add_(0, targets, rows)

    def reaching(self, targets: Int[Tensor, " pairs"], words: Int[Tensor, " pairs"], rows: Tensor) -> Rows:
        """Pairs no more words apart than are kept; nearer than that, all tokens of a word are."""
        near = self.next_words[targets] - words <= self.reach
        return targets[near], words[near], rows[near]


def whole_targets(targets: Int[Tensor, " pairs"], rows: int) -> Iterator[slice]:
    """Slices of about so many pairs (targets rising), none of which parts a target."""
    start = 0
    while start < len(targets):
        last = min(start + rows, len(targets)) - 1
        stop = int(torch.searchsorted(targets, targets[last], right=True))
        yield slice(start, stop)
        start = stop


def predicted_together(result: Scores, text: Text, request: Request, sum_sources: bool) -> Scores:
    """Scores of single tokens as targets, made those of words and spans by the chain rule: log probabilities
    add up, and so do their changes. Sources within the own word or span are no context; they go to `<own>`
    where rows that are no token are given. `sum_sources`: the scores have tokens for sources, which add up too.
    """
    if sum_sources:
        result = summed_sources(result, text, units_reached(text, request))
    if text.words is not None:
        result = by_word(result, text.words)
    return by_span(result, request.span) if request.span > 1 else result


def summed_sources(result: Scores, text: Text, reach: int) -> Scores:
    """Sources summed by word; those of more than `reach` units back go to the remainder, where that is given."""
    words = torch.arange(len(text.ids), device=text.ids.device) if text.words is None else text.words
    scores = result.scores.new_zeros(len(result.scores), text.units).index_add_(1, words, result.scores)
    far = words[1:, None] - torch.arange(text.units, device=words.device) > reach
    extra = dict(result.extra)
    if "<remainder>" in extra:
        extra["<remainder>"] = extra["<remainder>"] + scores.where(far, 0).sum(1)
    return replace(result, decomposition_length=reach, scores=scores, extra=extra)


def by_word(result: Scores, words: Int[Tensor, " T"]) -> Scores:
    """Targets summed by word; a word counts if all of its tokens are predicted."""
    predicted, count = words[1:], int(words[-1])
    inside = predicted > 0

    def summed(values: Tensor) -> Tensor:
        total = values.new_zeros(count, *values.shape[1:])
        return total.index_add_(0, predicted[inside] - 1, values[inside])

    own = result.scores.gather(1, predicted[:, None])
    return replace(
        result,
        targets=words_predicted(result.targets, words),
        log2_prob=summed(result.log2_prob),
        scores=summed(result.scores.scatter(1, predicted[:, None], 0)),
        extra=with_own({name: summed(values) for name, values in result.extra.items()}, summed(own[:, 0])),
    )


def words_predicted(targets: range, words: Int[Tensor, " T"]) -> range:
    """The words (less one, as a target stands before what it predicts) all of whose tokens the targets predict."""
    if not targets:
        return targets
    first, last = targets.start + 1, targets.stop
    begin, end = int(words[first]), int(words[last])
    begin += int(words[first - 1]) == begin
    end -= words[last + 1 : last + 2].tolist() == [end]
    return range(begin - 1, end)


def by_span(result: Scores, span: int) -> Scores:
    """Targets summed with the `span` − 1 after them, for sources before the first of them."""

    def summed(values: Tensor) -> Tensor:
        return values.unfold(0, span, 1).sum(-1) if len(values) >= span else values[:0]

    total = summed(result.scores)
    before = total.tril()
    return replace(
        result,
        targets=range(result.targets.start, max(result.targets.start, min(result.targets.stop, len(total)))),
        log2_prob=summed(result.log2_prob),
        scores=before,
        extra=with_own({k: summed(v) for k, v in result.extra.items()}, (total - before).sum(1)),
    )


def with_own(extra: dict[str, Tensor], own: Tensor) -> dict[str, Tensor]:
    return {**extra, "<own>": extra.get("<own>", 0) + own} if extra else {}
