"""The table of layers: a row per item, component, layer and token; and its means over items by role."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from decomp.evaluation.intervals import bootstrap_interval
from decomp.locate.facts import ROLES, Fact
from decomp.locate.layers.scoring import DirectShares, LayerScores
from decomp.tables.columns import significant


class LayerRow(NamedTuple):
    item: int
    """Its place in the file, from 0."""
    measure: str
    component: str
    layer: int | None
    """None for `embedding` and `bias`."""
    position: int
    """In the prompt; −1 for the beginning-of-sequence token."""
    token: str
    role: str
    function: str
    value: float
    """Of the function: target_true against target_false at the last position."""
    score: float


class MeanRow(NamedTuple):
    measure: str
    component: str
    layer: int | None
    role: str
    items: int
    mean: float
    """Over items; within an item over the tokens of the role."""
    low: float
    high: float
    seed: int


def gradient_rows(item: int, fact: Fact, scores: LayerScores, function: str) -> Iterator[LayerRow]:
    (value,) = significant(scores.value[None])
    for component, by_layer in scores.components.items():
        for layer, by_token in enumerate(by_layer):
            for i, score in enumerate(significant(by_token)):
                place = (i - fact.has_bos, fact.tokens[i], fact.roles[i])
                yield LayerRow(item, "gradient_x_activation", component, layer, *place, function, value, score)


def direct_rows(item: int, fact: Fact, shares: DirectShares, function: str) -> Iterator[LayerRow]:
    place = (fact.last - fact.has_bos, fact.tokens[-1], fact.roles[-1])
    value, embedding, bias = significant(torch.stack([shares.value, shares.embedding, shares.bias]))
    parts: list[tuple[str, int | None, float]] = [("embedding", None, embedding)]
    for component, by_layer in shares.components.items():
        parts.extend((component, layer, score) for layer, score in enumerate(significant(by_layer)))
    for component, number, score in [*parts, ("bias", None, bias)]:
        yield LayerRow(item, "direct", component, number, *place, function, value, score)


def aggregate(rows: Iterable[LayerRow], confidence: float, seed: int) -> list[MeanRow]:
    """Means over items by measure, component, layer and role, with percentile bootstrap intervals over items."""
    tokens: dict[tuple[str, str, int | None, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        tokens[row.measure, row.component, row.layer, row.role][row.item].append(row.score)
    means = []
    for key in sorted(tokens, key=lambda key: ROLES.index(key[3])):
        scores = np.array([np.mean(values) for values in tokens[key].values()])
        interval = bootstrap_interval(scores, seed, confidence)
        means.append(MeanRow(*key, len(scores), float(scores.mean()), *interval, seed))
    return means
