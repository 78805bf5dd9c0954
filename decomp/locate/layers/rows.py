"""The rows of the table of layers, by item, component, layer and token, and their means over items by role."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from decomp.locate.facts import OBJECT_ROLES, ROLES, Fact
from decomp.locate.layers.readings import tokens_of
from decomp.locate.layers.request import LayerRequest
from decomp.locate.layers.scoring import DirectShares, LayerScores
from decomp.tables.blocks import Block, block_of, rows_of
from decomp.tables.columns import significant
from decomp.tables.intervals import bootstrap_interval


class LayerRow(NamedTuple):
    """A row of the table of layers: the score of one component of one layer at one token, for one fact."""

    item: int
    """The item's row in its file, counted from 0."""
    measure: str
    """The name of the measure."""
    component: str
    """The component: `mlp`, `attention`, `residual`, `embedding` or `bias`."""
    layer: int | None
    """The layer's number, from 0; None for `embedding` and `bias`."""
    position: int
    """The token's position in the prompt; −1 for the beginning-of-sequence token."""
    token: str
    """The string of the token."""
    role: str
    """The role of the token with respect to the subject."""
    function: str
    """The name of the attributed function."""
    value: float
    """The value of the attributed function for the fact, the true object against the false one."""
    score: float
    """The score, in the unit of the function for direct shares."""


class MeanRow(NamedTuple):
    """A row of the table of means: a component's mean score at tokens of one role, with a bootstrap interval."""

    measure: str
    """The name of the measure."""
    component: str
    """The component: `mlp`, `attention`, `residual`, `embedding` or `bias`."""
    layer: int | None
    """The layer's number, from 0; None for `embedding` and `bias`."""
    role: str
    """The role of the tokens."""
    items: int
    """The number of items that the mean is over."""
    mean: float
    """The mean over items of each item's mean over its tokens of the role."""
    low: float
    """The lower end of the bootstrap interval."""
    high: float
    """The upper end of the bootstrap interval."""
    seed: int
    """The seed of the bootstrap."""


def gradient_rows(item: int, fact: Fact, scores: LayerScores, request: LayerRequest) -> Iterator[LayerRow]:
    """Yield a fact's rows of gradient × activation, by component, layer and token."""
    (value,) = significant(scores.value[None])
    tokens = tokens_of(fact, request)
    for component, by_layer in scores.components.items():
        for layer, by_token in enumerate(by_layer):
            for token, score in zip(tokens, significant(by_token), strict=True):
                yield LayerRow(item, "gradient_x_activation", component, layer, *token, request.function, value, score)


def direct_rows(item: int, fact: Fact, shares: DirectShares, function: str) -> Iterator[LayerRow]:
    """Yield a fact's rows of direct shares at the last position: the embedding, components by layer, the bias."""
    place = (fact.last - fact.has_bos, fact.tokens[-1], fact.roles[-1])
    value, embedding, bias = significant(torch.stack([shares.value, shares.embedding, shares.bias]))
    parts: list[tuple[str, int | None, float]] = [("embedding", None, embedding)]
    for component, by_layer in shares.components.items():
        parts.extend((component, layer, score) for layer, score in enumerate(significant(by_layer)))
    for component, number, score in [*parts, ("bias", None, bias)]:
        yield LayerRow(item, "direct", component, number, *place, function, value, score)


class Means:
    """A collector of means over items, by measure, component, layer and role.

    It keeps one number for each item, component, layer and role, which is what a bootstrap over items needs.
    """

    def __init__(self) -> None:
        self.each: dict[tuple[str, str, int | None, str], array[float]] = defaultdict(lambda: array("d"))
        self.item: int | None = None
        self.tokens: dict[tuple[str, str, int | None, str], list[float]] = defaultdict(list)
        """The scores of the item that is being added, by measure, component, layer and role."""

    def add(self, rows: Iterable[LayerRow]) -> None:
        """Add rows; those of an item must follow one another."""
        for row in rows:
            if row.item != self.item:
                self.close()
                self.item = row.item
            self.tokens[row.measure, row.component, row.layer, row.role].append(row.score)

    def close(self) -> None:
        """Add the means of the last item, whose rows are complete."""
        for key, scores in self.tokens.items():
            self.each[key].append(float(np.mean(scores)))
        self.tokens.clear()

    def add_block(self, block: Block) -> None:
        """Add a block of rows; those of an item must follow one another."""
        self.add(LayerRow(*row) for row in rows_of(block))

    def rows(self, confidence: float, seed: int) -> list[MeanRow]:
        """Return the means by role, with percentile bootstrap intervals over items (Efron 1979)."""
        self.close()
        means = []
        roles = (*ROLES, *OBJECT_ROLES)
        for key in sorted(self.each, key=lambda key: roles.index(key[3])):
            scores = np.array(self.each[key])
            interval = bootstrap_interval(scores, seed, confidence)
            means.append(MeanRow(*key, len(scores), float(scores.mean()), *interval, seed))
        return means


@dataclass(frozen=True)
class MeanSummary:
    """The table of means by role, made of the rows of all items."""

    means: Means
    confidence: float
    seed: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the means."""
        return MeanRow._fields

    def __call__(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the means of all rows."""
        for block in blocks:
            self.means.add_block(block)
        yield block_of(self.columns, self.means.rows(self.confidence, self.seed))
