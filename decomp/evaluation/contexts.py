"""Evaluating measures on contexts: do answers lose most without the segments that a measure ranks first?

Segments are removed from the context, and the answer's probability is computed again.
Leaving one segment out, and the k highest together (top-k log-probability drop), is how ContextCite (Cohen-Wang et al.
2024) judges attributions of contexts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decomp.core.ablation import next_log2_prob
from decomp.core.model import Model
from decomp.corpus.context_items import ContextItem, Message
from decomp.corpus.contexts import TokenisedContext, tokenise_context
from decomp.evaluation.agreement import agreement
from decomp.measures import Measure, Request
from decomp.measures.contexts import score_context
from decomp.tables import intervals
from decomp.tables.blocks import Block, block_of

COLUMNS = ("removal", "measure", "metric", "items", *intervals.COLUMNS)
COMPUTED = (*COLUMNS[:3], "value")
"""The columns of what is computed for each item."""
REMOVALS = ("removed", "masked")
"""The two ways to remove segments: the text without them, or with their keys hidden from all later positions."""
TOP = (1, 3)
"""The numbers of highest segments that are removed together."""
ITSELF, RANDOM = "<leave_one_out>", "<random>"
"""The names of two rankings beside those of measures: by the effect of removing each segment itself, and random."""

LogProbWithout = Callable[[Sequence[int]], float]
"""A function from numbers of segments to the answer's log2 probability without these segments, in bits."""


def answer_log2_prob(hidden: Float[Tensor, "T E"], ids: Int[Tensor, " T"], begin: int, model: Model) -> float:
    """Return the log2 probability of the tokens from position `begin` on, in bits."""
    return float(next_log2_prob(hidden[begin - 1 : -1], ids[begin:], model.unembedding()).sum())


def without(item: ContextItem, numbers: Sequence[int]) -> ContextItem:
    """Return an item without some of its segments; chat messages without any segment left are removed, too."""
    gone = {item.segments[number].name for number in numbers}
    left = [Message(m.role, tuple(s for s in m.segments if s.name not in gone)) for m in item.messages]
    segments = tuple(segment for segment in item.segments if segment.name not in gone)
    return replace(item, segments=segments, messages=tuple(message for message in left if message.segments))


@dataclass(frozen=True)
class SegmentRemoval:
    """A context from which segments can be removed, to compute the probability of its answer without them."""

    model: Model
    tokenizer: Any
    context: TokenisedContext
    bos: bool

    @torch.no_grad()
    def plain(self) -> float:
        """Return the log2 probability of the answer after the whole context, in bits."""
        ids = self.context.ids.to(self.model.device)
        return answer_log2_prob(self.model.hidden_without(ids[None])[0], ids, self.context.begin, self.model)

    @torch.no_grad()
    def removed(self, numbers: Sequence[int]) -> float:
        """Return the log2 probability of the answer after the text without some segments, in bits."""
        context, config = self.context, self.model.config
        item, answer = replace(without(context.item, numbers), answer=None), context.ids[context.begin :]
        positions = self.model.max_length()
        shorter = tokenise_context(item, self.tokenizer, config, positions, self.bos, lambda ids: answer)
        ids = shorter.ids.to(self.model.device)
        return answer_log2_prob(self.model.hidden_without(ids[None])[0], ids, shorter.begin, self.model)

    @torch.no_grad()
    def masked(self, numbers: Sequence[int]) -> float:
        """Return the log2 probability of the answer, in bits, where no later position attends to some segments."""
        ids = self.context.ids.to(self.model.device)
        hidden: Bool[Tensor, " T"] = torch.isin(self.context.labels, torch.tensor(list(numbers))).to(ids.device)
        states = self.model.hidden_without(ids[None], hidden[None])[0]
        return answer_log2_prob(states, ids, self.context.begin, self.model)


@dataclass(frozen=True)
class ContextRows:
    """A function of contexts: the metrics of measures' rankings of segments on each of them."""

    measures: Sequence[Measure]
    request: Request
    tokenizer: Any
    bos: bool
    seed: int

    def block(self, model: Model, contexts: Sequence[TokenisedContext]) -> Block:
        """Return the metrics of some contexts, as rows with the columns `COMPUTED`."""
        return block_of(COMPUTED, (row for context in contexts for row in self.rows(model, context)))

    def rows(self, model: Model, context: TokenisedContext) -> Iterator[tuple[str, str, str, float]]:
        """Yield the metrics of one context, for each way of removing segments and each ranking."""
        removals = SegmentRemoval(model, self.tokenizer, context, self.bos)
        ranked = [number for number, segment in enumerate(context.segments) if segment.ranked]
        measured = score_context(model, context, self.measures, self.request)
        scores = {scored.measure: scored.of_answer()[ranked] for scored in measured}
        scores[RANDOM] = np.random.default_rng([self.seed, context.item.number]).permutation(len(ranked)).astype(float)
        plain = removals.plain()
        for removal in REMOVALS:
            without_segments = getattr(removals, removal)
            lost = np.array([plain - without_segments([number]) for number in ranked])
            for name, own in {**scores, ITSELF: lost}.items():
                yield from (
                    (removal, name, *found)
                    for found in ranking_metrics(own, lost, ranked, context, plain, without_segments)
                )


def ranking_metrics(
    scores: Float[np.ndarray, " S"],
    lost: Float[np.ndarray, " S"],
    ranked: Sequence[int],
    context: TokenisedContext,
    plain: float,
    without_segments: LogProbWithout,
) -> Iterator[tuple[str, float]]:
    """Yield the metrics of one ranking by name.

    They are the rank correlation of `scores` with `lost` (the bits lost without each segment), the bits lost without
    the highest segments together, and 1 / rank of the segment that is known to decide.
    """
    found = agreement(scores, lost)
    if found is not None:
        yield "spearman", found.spearman
    order = np.argsort(-scores, kind="stable")
    for count in TOP:
        highest = order[:count]
        yield (
            f"top_{count}_drop",
            float(lost[highest[0]] if count == 1 else plain - without_segments([ranked[n] for n in highest])),
        )
    names = [context.segments[ranked[number]].name for number in order]
    if context.item.evidence in names:
        yield "reciprocal_rank", 1 / (1 + names.index(context.item.evidence))
