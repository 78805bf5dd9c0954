"""Scores of a context's segments as rows of the long table: for the whole answer, then for each sentence of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.corpus.context_items import ANSWER
from decomp.corpus.contexts import OWN, TEMPLATE, TokenisedContext
from decomp.corpus.parts import sentences
from decomp.measures import Measure, Request
from decomp.measures.contexts import ContextScores, refined, score_context
from decomp.tables.blocks import Block, Row, block_of
from decomp.tables.columns import COLUMNS

CONTEXT_COLUMNS = ("item", "part", "level", "segment", "source_length", "rank", "log2_prob_without", *COLUMNS)
"""Columns of a table of contexts; in front the item, part of its answer, level of division, and name of the segment."""
REMOVED = ("delta_lp", "occlusion")
"""Measures whose scores say by how much the log2 probability changes without a segment."""


@dataclass(frozen=True)
class ContextScorer:
    """The measures and settings by which contexts are scored, and how finely the strongest segments are divided."""

    measures: Sequence[Measure]
    request: Request
    refine: int = 0
    """The number of levels below the segments: 1 divides them into sentences, 2 these into words too."""
    refine_top: int = 1
    """The number of strongest segments that are divided at each level."""

    columns = CONTEXT_COLUMNS

    def part(self, tokenizer: Any, model: Model, contexts: Sequence[TokenisedContext]) -> Block:
        """Return the rows of these contexts."""
        return block_of(self.columns, chain.from_iterable(self.rows(tokenizer, model, each) for each in contexts))

    def rows(self, tokenizer: Any, model: Model, context: TokenisedContext) -> Iterator[Row]:
        """Yield the rows of one context: for each measure and level the whole answer, then each sentence of it."""
        scored, parts = score_context(model, context, self.measures, self.request), answer_parts(context, tokenizer)
        divided = refined(model, scored, self.measures, self.request, self.refine, self.refine_top)
        levels = [("segment", scored), *divided]
        for number in range(len(self.measures)):
            for level, scores in levels:
                yield from context_rows(scores[number], level, parts, tokenizer)


class Part(NamedTuple):
    """A part of an answer."""

    name: str
    text: str
    tokens: range
    """Indices of the part's tokens in the context with its answer."""


def answer_parts(context: TokenisedContext, tokenizer: Any) -> list[Part]:
    """Return the whole answer and, where it has several sentences, each of these.

    A token belongs to the sentence that it begins in.
    """
    texts = [tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in beginnings(context)]
    whole, end = texts[-1], len(context.ids)
    # Where each token begins, less the white space that it begins with.
    begins = [len(before) + leading(after[len(before) :]) for before, after in pairwise(texts)]
    firsts = [context.begin + int(np.searchsorted(begins, start)) for start, _ in sentences(whole)]
    edges = [context.begin, *sorted({*firsts[1:]} - {context.begin, end}), end]
    parts = [Part(ANSWER, whole.strip(), range(context.begin, end))]
    for number, (first, stop) in enumerate(pairwise(edges if len(edges) > 2 else ()), 1):
        text = whole[len(texts[first - context.begin]) : len(texts[stop - context.begin])]
        parts.append(Part(f"sentence {number}", text.strip(), range(first, stop)))
    return parts


def beginnings(context: TokenisedContext) -> list[Int[Tensor, " n"]]:
    """Return the first n tokens of an answer, for every n from 0 to all."""
    ids = context.ids[context.begin :]
    return [ids[:count] for count in range(len(ids) + 1)]


def leading(text: str) -> int:
    """Return the number of white-space characters that a text begins with."""
    return len(text) - len(text.lstrip())


def context_rows(scored: ContextScores, level: str, parts: Sequence[Part], tokenizer: Any) -> Iterator[Row]:
    """Yield the rows of one measure at one level: for each part of the answer its segments, then the other sources."""
    context, first = scored.context, scored.context.begin
    for part in parts:
        scores = scored.of_tokens(part.tokens)
        log2_prob = float(scored.log2_prob[part.tokens.start - first : part.tokens.stop - first].sum())
        ranks = ranks_of(context, scores)
        removes = scored.measure in REMOVED
        for source, name, text, position, length in sources_of(context, tokenizer, level):
            score = float(scores[source])
            yield (
                context.item.name,
                part.name,
                level,
                name,
                length,
                ranks.get(source),
                log2_prob - score if removes else None,
                context.item.number,
                0,
                part.tokens.start - context.has_bos,
                part.text,
                position,
                text,
                None if position is None else part.tokens.start - context.has_bos - position,
                log2_prob,
                scored.measure,
                score,
            )


def ranks_of(context: TokenisedContext, scores: Float[np.ndarray, " S+3"]) -> dict[int, int]:
    """Return the rank of each segment that is ranked, 1 for the highest score."""
    ranked = [number for number, segment in enumerate(context.segments) if segment.ranked]
    order = sorted(ranked, key=lambda number: -scores[number])
    return {number: rank for rank, number in enumerate(order, 1)}


def sources_of(
    context: TokenisedContext, tokenizer: Any, level: str
) -> Iterator[tuple[int, str, str, int | None, int | None]]:
    """Yield each source that has rows, in text order: its label, name, text, first position, and number of tokens.

    At the level of whole segments these are also the beginning of sequence (source −1), and the template and the
    answer's own tokens, whose names are in angle brackets and which have no position.
    """
    count, labels = len(context.segments), context.labels
    for label in context.source_order:
        places = (labels == label).nonzero()[:, 0]
        if label < count:
            segment, position = context.segments[label], int(places[0]) - context.has_bos
            yield label, segment.name, segment.text, position, len(places)
        elif level == "segment" and label == count:
            (token,) = tokenizer.convert_ids_to_tokens([int(context.ids[0])])
            yield label, token, token, -1, 1
        elif level == "segment":
            name = TEMPLATE if label == count + 1 else OWN
            yield label, name, name, None, None
