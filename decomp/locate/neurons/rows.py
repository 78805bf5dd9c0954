"""The table of neurons: which ones were found for an item, shared by the prompts of its fact."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decomp.locate.neurons.items import Asked
from decomp.locate.neurons.scoring import NeuronScores
from decomp.tables.columns import significant


class NeuronRow(NamedTuple):
    item: int
    """Its place in the file, from 0."""
    fact: str
    level: str
    """What was masked of an edit: token, line, block; empty for prompts."""
    layer: int
    neuron: int
    position: int | None
    """Of the predicted token in its text, without the beginning-of-sequence token; None for the sum over all."""
    token: str | None
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
    item: int
    fact: str
    level: str
    layer: int
    neurons: int


def found(scores: Float[Tensor, "L F"], threshold: float) -> Bool[Tensor, "L F"]:
    """Neurons with at least this fraction of the largest score; none where no score is positive."""
    return (scores >= threshold * scores.max()) & (scores.max() > 0)


def shares(each: Sequence[Bool[Tensor, "L F"]]) -> Float[Tensor, "L F"]:
    """The fraction of prompts that found each neuron."""
    return torch.stack(list(each)).double().mean(0)


def neuron_rows(
    asked: Asked,
    result: NeuronScores,
    kept: Bool[Tensor, "L F"],
    share: Float[Tensor, "L F"],
    predicted: Sequence[str] | None,
) -> Iterator[NeuronRow]:
    """The kept neurons by rank; one row for each of the `predicted` tokens where they are given."""
    total = result.scores.sum(1)
    ranks, order = ranked(total, kept)
    layers, neurons = (order // total.shape[1]).tolist(), (order % total.shape[1]).tolist()
    by_place = total[:, None] if predicted is None else result.scores
    scores = significant(by_place.transpose(1, 2).flatten(0, 1)[order].flatten())
    places = [(None, None)] if predicted is None else list(zip(positions_of(asked), predicted, strict=True))
    value, *rest = significant(torch.cat([result.value[None], result.effect, result.residual]))
    for n, (rank, layer, neuron) in enumerate(zip(ranks, layers, neurons, strict=True)):
        tail = (float(share[layer, neuron]), value, rest[layer], rest[len(total) + layer])
        for j, place in enumerate(places):
            key = (asked.item, asked.fact, asked.level, layer, neuron)
            yield NeuronRow(*key, *place, rank, scores[n * len(places) + j], *tail)


def ranked(total: Float[Tensor, "L F"], kept: Bool[Tensor, "L F"]) -> tuple[list[int], Int[Tensor, " N"]]:
    """Ranks of the kept neurons among all, from 1, and their places in the flattened scores."""
    order = total.flatten().argsort(descending=True, stable=True)
    places = kept.flatten()[order].nonzero()[:, 0]
    return (places + 1).tolist(), order[places]


def positions_of(asked: Asked) -> list[int]:
    """Positions of the predicted tokens in the text, of the foil's after the target's."""
    start = len(asked.target.context) - asked.has_bos
    return [start + place for completion in asked.completions for place in range(len(completion.target))]


def count_rows(asked: Asked, kept: Bool[Tensor, "L F"]) -> list[CountRow]:
    """How many neurons an item has in each layer."""
    return [
        CountRow(asked.item, asked.fact, asked.level, layer, count) for layer, count in enumerate(kept.sum(1).tolist())
    ]
