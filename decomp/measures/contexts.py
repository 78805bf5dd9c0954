"""Scores of the segments of a context for an answer: any measure, summed over the answer's tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.model import Model
from decomp.core.partition import Partition
from decomp.corpus.context_items import LEVELS, WITHIN, Segment
from decomp.corpus.contexts import TokenisedContext, in_segments
from decomp.corpus.parts import Span, sentences
from decomp.corpus.words import whitespace_words
from decomp.measures.registry import Measure
from decomp.measures.request import Request, Text


@dataclass(frozen=True)
class ContextScores:
    """The scores of one measure: of every segment of a context, for each token of the answer."""

    context: TokenisedContext
    measure: str
    log2_prob: Float[np.ndarray, " answer"]
    """The log2 probability of each token of the answer, in bits."""
    scores: Float[np.ndarray, "answer S+3"]
    """The scores: the columns are the segments, then the beginning of sequence, the template, the answer itself."""

    def of_tokens(self, tokens: range) -> Float[np.ndarray, " S+3"]:
        """Return the scores for a range of the answer's tokens together, which are sums by the chain rule.

        `tokens` are positions in the whole text, in which the answer begins at `context.begin`.
        """
        first = self.context.begin
        total: Float[np.ndarray, " S+3"] = self.scores[tokens.start - first : tokens.stop - first].sum(0)
        return total

    def of_answer(self) -> Float[np.ndarray, " S+3"]:
        """Return the scores for the whole answer."""
        return self.of_tokens(range(self.context.begin, len(self.context.ids)))

    def strongest(self, count: int) -> list[int]:
        """Return the `count` ranked segments with the highest scores for the whole answer, highest first."""
        scores = self.of_answer()
        ranked = [number for number, segment in enumerate(self.context.segments) if segment.ranked]
        return sorted(ranked, key=lambda number: -scores[number])[:count]


def score_context(
    model: Model, context: TokenisedContext, measures: Sequence[Measure], request: Request
) -> list[ContextScores]:
    """Return the scores of a context's segments for each token of its answer, by each measure."""
    sources = Partition.of(context.labels)
    text = Text(context.ids.to(model.device), context.targets, sources=sources, place=context.item.place)
    targets, found = slice(context.targets.start, context.targets.stop), []
    for measure in measures:
        ((result,),) = measure(model, [text], request)
        scores = result.scores.new_zeros(len(context.targets), len(context.segments) + 3)
        scores[:, context.source_order] = result.scores[targets]
        found.append(ContextScores(context, result.measure, array(result.log2_prob[targets]), array(scores)))
    return found


def array(values: Tensor) -> Float[np.ndarray, "..."]:
    """Return a tensor as an array of double precision in main memory."""
    return values.detach().to(torch.float64).cpu().numpy()


def refined(
    model: Model,
    scored: Sequence[ContextScores],
    measures: Sequence[Measure],
    request: Request,
    depth: int,
    count: int,
) -> Iterator[tuple[str, list[ContextScores]]]:
    """Yield scores at finer levels: sentences of the strongest segments, then words of the strongest sentences.

    `depth` is the number of these levels; at each, the `count` strongest sources by the first measure are divided.
    Scores are exact at every level: the parts are sources of their own, and whatever is not divided remains a source.
    """
    for level in LEVELS[1 : depth + 1]:
        context, chosen = scored[0].context, scored[0].strongest(count)
        parts = [part for number in chosen for part in parts_of(context, number, level)]
        divided = in_segments(context, *zip(*parts, strict=True))
        scored = score_context(model, divided, measures, request)
        yield level, list(scored)


def parts_of(context: TokenisedContext, number: int, level: str) -> list[tuple[Segment, Span]]:
    """Return the sentences or words of a segment in which a token begins, with the span of each in the text."""
    segment, text = context.segments[number], context.rendered.text
    start, stop = span_of(context, number)
    inner = text[start:stop]
    spans = sentences(inner) if level == "sentence" else whitespace_words(inner).tolist()
    begins = [start + first for first, _ in spans]
    own = context.first_characters[context.labels[: context.begin].numpy() == number]
    known = [first for first, after in zip(begins, [*begins[1:], stop], strict=True) if inside(own, first, after)]
    found = []
    for count, (first, after) in enumerate(zip(known, [*known[1:], stop], strict=True), 1):
        part = replace(segment, name=f"{segment.name}{WITHIN}{level} {count}", text=text[first:after].strip())
        found.append((part, (first, after)))
    return found


def inside(characters: np.ndarray, first: int, after: int) -> bool:
    """Return whether any of the characters is in [first, after)."""
    return bool(((characters >= first) & (characters < after)).any())


def span_of(context: TokenisedContext, number: int) -> Span:
    """Return the span of a segment in the context's text, without white space at its beginning."""
    start, stop = context.spans[number]
    return start + len(context.rendered.text[start:stop]) - len(context.rendered.text[start:stop].lstrip()), stop
