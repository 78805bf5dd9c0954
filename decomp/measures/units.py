"""Turning scores of single tokens into those of predicted words and spans, and of groups of tokens as sources."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.partition import Partition
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores


def kept_count(text: Text, request: Request) -> int:
    """Return the largest number of most recent sources that are kept for a target."""
    return min(request.decomposition_length or text.partition.count, text.partition.count)


def next_words(words: Int[Tensor, " T"]) -> Int[Tensor, " T"]:
    """Return the word of the token that each target predicts; for the last target, the number of a further word."""
    return torch.cat([words[1:], words[-1:] + 1])


def begun_before(text: Text) -> Int[Tensor, " units"]:
    """Return for each unit (token or word) the number of sources that have begun when the next unit is predicted."""
    begun = text.partition.begun
    if text.words is None:
        return begun
    words = text.words.cpu()
    return begun[torch.searchsorted(words, torch.arange(text.units), right=True) - 1]


def oldest_kept(text: Text, request: Request) -> Int[Tensor, " T"]:
    """Return the oldest source that counts for the prediction of each target, in the earliest span that it is in."""
    following = torch.arange(1, len(text.ids) + 1) if text.words is None else next_words(text.words.cpu())
    begun = begun_before(text)[(following - request.span).clamp(min=0)]
    return (begun - kept_count(text, request)).clamp(min=0)


def sources_reached(text: Text, request: Request) -> int:
    """Return the decomposition length, in sources, that covers the kept sources of every target."""
    return int((text.partition.begun - oldest_kept(text, request)).max())


def tokens_reached(text: Text, request: Request) -> int:
    """Return the decomposition length, in tokens, that covers all tokens of the kept sources of every target."""
    first_token = torch.tensor(text.partition.begins)[oldest_kept(text, request)]
    return int((torch.arange(len(text.ids)) - first_token).max()) + 1


def in_units(result: Scores, text: Text, request: Request, *, sum_sources: bool, additive: bool) -> Scores:
    """Return the scores of single tokens turned into those of the words, spans and sources of the request.

    Scores of targets are summed by the chain rule: log probabilities add up, and so do their changes. `sum_sources`
    says that the columns are still tokens, to be summed by source. `additive` says that the score of several sources
    together is the sum of theirs, so that there may be rows of what is no token (`<own>`, `<remainder>`).
    """
    with_rows = bool(result.extra) or (additive and request.extra)
    if sum_sources:
        result = replace(result, scores=summed_by_source(result.scores, text.partition))
    if text.words is not None:
        result = by_word(result, text.words)
    if request.span > 1:
        result = by_span(result, request.span)
    if text.words is not None or request.span > 1:
        result = without_own_sources(result, text, request.own or with_rows)
    return kept_sources(result, text, request, with_rows)


def kept_sources(result: Scores, text: Text, request: Request, with_rows: bool) -> Scores:
    """Return scores of the most recent sources alone; `with_rows`, the sum over older ones becomes `<remainder>`.

    A measure may have left out the older sources itself, and given a score of all of them together.
    """
    length, begun = kept_count(text, request), begun_before(text)
    plain = torch.equal(begun, torch.arange(1, len(begun) + 1))
    result = replace(result, decomposition_length=length, begun=None if plain else tuple(begun.tolist()))
    if length >= text.partition.count:
        return result
    kept = numbers_of(result) >= (begun[: len(result.scores), None] - length).to(result.scores.device)
    extra = dict(result.extra)
    if with_rows:
        extra["<remainder>"] = extra.get("<remainder>", 0) + result.scores.where(~kept, 0).sum(1)
    return replace(result, scores=result.scores.where(kept, 0), extra=extra)


def numbers_of(result: Scores) -> Int[Tensor, " sources"]:
    """Return the numbers of all sources, which are the columns of the scores."""
    return torch.arange(result.scores.shape[1], device=result.scores.device)


def without_own_sources(result: Scores, text: Text, wanted: bool) -> Scores:
    """Return scores of the sources that begin before the predicted word or span, which are its context.

    The sum over sources that begin within it becomes the row `<own>` if `wanted`.
    """
    context = numbers_of(result) < begun_before(text)[: len(result.scores), None].to(result.scores.device)
    own = {"<own>": result.scores.where(~context, 0).sum(1)} if wanted else {}
    return replace(result, scores=result.scores.where(context, 0), extra={**result.extra, **own})


def summed_by_source(scores: Float[Tensor, "targets tokens"], partition: Partition) -> Float[Tensor, "targets sources"]:
    """Return scores summed over the tokens of each source; they may have fewer columns than the text has tokens."""
    if partition.is_tokens:
        return scores
    sums = scores.new_zeros(len(scores), partition.count)
    return sums.index_add_(1, partition.labels[: scores.shape[1]].to(scores.device), scores)


def by_word(result: Scores, words: Int[Tensor, " T"]) -> Scores:
    """Return scores summed over the tokens of each predicted word; words with tokens not predicted are left out."""
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
    """Return the targets of the words whose tokens are all predicted: a word's number minus one."""
    if not targets:
        return targets
    first, last = targets.start + 1, targets.stop
    begin, end = int(words[first]), int(words[last])
    begin += int(words[first - 1]) == begin
    end -= words[last + 1 : last + 2].tolist() == [end]
    return range(begin - 1, end)


def by_span(result: Scores, span: int) -> Scores:
    """Return scores of spans: each target's scores summed with those of the `span` − 1 targets after it."""

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
