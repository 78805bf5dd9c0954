"""The table of neurons: which ones were found for an item, shared by the prompts of its fact."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decomp.locate.neurons.items import Item
from decomp.locate.neurons.scoring import NeuronScores
from decomp.tables.columns import significant


class NeuronRow(NamedTuple):
    """A neuron, and what it has in an item's completion."""

    item: int
    """Its place in the file, from 0."""
    fact: str
    level: str
    """What was asked to be masked of an edit: token, line, block, or its own mask; empty for prompts."""
    cut: str
    """What was: a wider level, at last `neighbor`, where the one asked for leaves nothing new; empty for prompts."""
    layer: int
    neuron: int
    position: int | None
    """Of the predicted token in its text, without the beginning-of-sequence token; None for the sum over all."""
    token: str | None
    found: bool
    """Whether its score is large enough, and enough of the fact's prompts found it."""
    rank: int
    """Of the neuron among all of the item, by its sum, from 1."""
    score: float
    share: float
    """Of the fact's prompts, those that found the neuron."""
    value: float
    """F(w), the attributed function."""
    effect: float
    """F(w) − F(0) of the neuron's layer."""
    residual: float
    """The sum of the layer's scores less that."""


class CountRow(NamedTuple):
    """How many neurons were found in one layer for an item."""

    item: int
    fact: str
    level: str
    cut: str
    layer: int
    neurons: int


def found(scores: Float[Tensor, "L F"], threshold: float) -> Bool[Tensor, "L F"]:
    """Return the neurons with at least this fraction of the largest score; none where no score is positive."""
    return (scores >= threshold * scores.max()) & (scores.max() > 0)


def shares(each: Sequence[Bool[Tensor, "L F"]]) -> Float[Tensor, "L F"]:
    """Return the fraction of prompts that found each neuron."""
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
    """Yield the kept neurons by rank, or every one; one row for each predicted token with `per_position`."""
    total = result.scores.sum(1)
    ranks, order = ranked(total, kept | everything)
    layers, neurons = (order // total.shape[1]).tolist(), (order % total.shape[1]).tolist()
    by_place = result.scores if per_position else total[:, None]
    scores = significant(by_place.transpose(1, 2).flatten(0, 1)[order].flatten())
    places = list(zip(positions_of(item), item.tokens, strict=True)) if per_position else [(None, None)]
    value, *rest = significant(torch.cat([result.value[None], result.effect, result.residual]))
    for n, (rank, layer, neuron) in enumerate(zip(ranks, layers, neurons, strict=True)):
        tail = (float(share[layer, neuron]), value, rest[layer], rest[len(total) + layer])
        front = (item.number, item.fact, item.level, item.cut.level, layer, neuron)
        for j, place in enumerate(places):
            score = scores[n * len(places) + j]
            yield NeuronRow(*front, *place, bool(kept[layer, neuron]), rank, score, *tail)


def ranked(total: Float[Tensor, "L F"], kept: Bool[Tensor, "L F"]) -> tuple[list[int], Int[Tensor, " N"]]:
    """Return the ranks of the kept neurons among all, from 1, and their places in the flattened scores."""
    order = total.flatten().argsort(descending=True, stable=True)
    places = kept.flatten()[order].nonzero()[:, 0]
    return (places + 1).tolist(), order[places]


def positions_of(item: Item) -> list[int]:
    """Return the positions of the predicted tokens in the text, of the foil's after the target's."""
    start = len(item.target.context) - item.has_bos
    return [start + place for completion in item.completions for place in range(len(completion.target))]


def layer_rows(item: Item, result: NeuronScores, kept: Bool[Tensor, "L F"]) -> Iterator[tuple[Any, ...]]:
    """Yield a row for every layer of an item, as a neuron has it, but of none, and with the number of those found."""
    (value,), effects, residuals = (significant(x) for x in (result.value[None], result.effect, result.residual))
    front = (item.number, item.fact, item.level, item.cut.level)
    for layer, (count, effect, residual) in enumerate(zip(kept.sum(1).tolist(), effects, residuals, strict=True)):
        row = (*front, layer, None, None, None, False, None, None, None, value, effect, residual)
        yield (*row, count)


def cut_of(one: Item) -> Mapping[str, Any]:
    """Return what a person checks of a cut: the text with `[MASK]`, and what was there."""
    names = {"item": one.number, "fact": one.fact, "level": one.level, "cut": one.cut.level}
    return {**names, "masked": one.cut.masked, "old": one.cut.old, "new": one.cut.new}
