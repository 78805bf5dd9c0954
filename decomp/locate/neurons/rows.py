"""The rows of the table of neurons: those found for each item, and how many prompts of its fact share them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decomp.locate.neurons.items import Item
from decomp.locate.neurons.scoring import NeuronScores
from decomp.tables.columns import significant


class NeuronRow(NamedTuple):
    """A row of the table of neurons: the score of one neuron for one item's completion."""

    item: int
    """The item's row in its file, counted from 0."""
    fact: str
    """The name of the fact."""
    level: str
    """The level of an edit that was asked for: token, line, block, or its own mask; empty for prompts."""
    cut: str
    """The level that the edit was cut at, which is wider where the other leaves nothing new; empty for prompts."""
    layer: int
    """The layer's number, from 0."""
    neuron: int
    """The neuron's number in its layer, from 0."""
    position: int | None
    """The predicted token's position in its text, the BOS token not counted; None for the sum over all tokens."""
    token: str | None
    """The string of the predicted token; None for the sum over all tokens."""
    found: bool
    """Whether the neuron's score is large enough, and enough of the fact's prompts have found it."""
    rank: int
    """The neuron's rank among all neurons by its score for the whole target, from 1."""
    score: float
    """The neuron's score by integrated gradients, in the unit of the function."""
    share: float
    """The share of the fact's prompts that have found the neuron."""
    value: float
    """The value F(w) of the attributed function with the neurons w as they are."""
    effect: float
    """F(w) − F(0), the change of the function when all neurons of this neuron's layer are set to zero."""
    residual: float
    """The sum of the layer's scores minus `effect`, the error of integration."""


class CountRow(NamedTuple):
    """A row of the table of counts: how many neurons were found in one layer for one item."""

    item: int
    """The item's row in its file, counted from 0."""
    fact: str
    """The name of the fact."""
    level: str
    """The level of an edit that was asked for; empty for prompts."""
    cut: str
    """The level that the edit was cut at; empty for prompts."""
    layer: int
    """The layer's number, from 0."""
    neurons: int
    """The number of neurons found."""


def found(scores: Float[Tensor, "L F"], threshold: float) -> Bool[Tensor, "L F"]:
    """Return the neurons with at least the fraction `threshold` of the largest score; none if no score is positive."""
    return (scores >= threshold * scores.max()) & (scores.max() > 0)


def shares(each: Sequence[Bool[Tensor, "L F"]]) -> Float[Tensor, "L F"]:
    """Return for each neuron the fraction of prompts that have found it."""
    return torch.stack(list(each)).double().mean(0)


def neuron_rows(
    item: Item,
    result: NeuronScores,
    kept: Bool[Tensor, "L F"],
    share: Float[Tensor, "L F"],
    *,
    everything: bool = False,
    per_position: bool = False,
) -> Iterator[NeuronRow]:
    """Yield the rows of the kept neurons by rank, or of all; with `per_position`, one for each predicted token."""
    total = result.scores.sum(1)
    ranks, order = ranked(total, kept | everything)
    layers, neurons = (order // total.shape[1]).tolist(), (order % total.shape[1]).tolist()
    by_place = result.scores if per_position else total[:, None]
    scores = significant(by_place.transpose(1, 2).flatten(0, 1)[order].flatten())
    places = list(zip(positions_of(item), item.tokens, strict=True)) if per_position else [(None, None)]
    value, *rest = significant(torch.cat([result.value[None], result.effect, result.residual]))
    for n, (rank, layer, neuron) in enumerate(zip(ranks, layers, neurons, strict=True)):
        tail = (float(share[layer, neuron]), value, rest[layer], rest[len(total) + layer])
        shared = (item.number, item.fact, item.level, item.cut.level, layer, neuron)
        for j, place in enumerate(places):
            score = scores[n * len(places) + j]
            yield NeuronRow(*shared, *place, bool(kept[layer, neuron]), rank, score, *tail)


def ranked(total: Float[Tensor, "L F"], kept: Bool[Tensor, "L F"]) -> tuple[list[int], Int[Tensor, " N"]]:
    """Return the ranks of the kept neurons among all, from 1, and their indices in the flattened scores."""
    order = total.flatten().argsort(descending=True, stable=True)
    places = kept.flatten()[order].nonzero()[:, 0]
    return (places + 1).tolist(), order[places]


def positions_of(item: Item) -> list[int]:
    """Return the positions in the text of the predicted tokens: those of the target, then those of the foil."""
    start = len(item.target.context) - item.has_bos
    return [start + place for completion in item.completions for place in range(len(completion.target))]


def layer_rows(item: Item, result: NeuronScores, kept: Bool[Tensor, "L F"]) -> Iterator[tuple[Any, ...]]:
    """Yield a row for every layer of an item, with the columns of neurons, and the number of neurons found."""
    (value,), effects, residuals = (significant(x) for x in (result.value[None], result.effect, result.residual))
    shared = (item.number, item.fact, item.level, item.cut.level)
    for layer, (count, effect, residual) in enumerate(zip(kept.sum(1).tolist(), effects, residuals, strict=True)):
        row = (*shared, layer, None, None, None, False, None, None, None, value, effect, residual)
        yield (*row, count)


def cut_of(one: Item) -> Mapping[str, Any]:
    """Return the description of a cut for a reader: the text with `[MASK]`, and the text that was cut out."""
    names = {"item": one.number, "fact": one.fact, "level": one.level, "cut": one.cut.level}
    return {**names, "masked": one.cut.masked, "old": one.cut.old, "new": one.cut.new}
