"""Means and their bootstrap intervals (Efron 1979)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from decomp.tables.blocks import Block, Row, block_of, rows_of

K = TypeVar("K")
V = TypeVar("V")

RESAMPLES = 1000
BLOCKS = 10
"""The number of blocks in which resamples are drawn, to bound memory."""
COLUMNS = ("mean", "low", "high", "seed")


def bootstrap_interval(values: Float[np.ndarray, " items"], seed: int, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean, from `RESAMPLES` draws of the items with replacement."""
    generator = np.random.default_rng(seed)
    sizes = (RESAMPLES // BLOCKS, len(values))
    means = [values[generator.integers(len(values), size=sizes)].mean(1) for _ in range(BLOCKS)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def gathered(items: Iterable[Iterable[tuple[K, V]]]) -> dict[K, list[V]]:
    """Return all values of each key, with the keys in order of appearance."""
    found: dict[K, list[V]] = {}
    for item in items:
        for key, value in item:
            found.setdefault(key, []).append(value)
    return found


def gathered_rows(blocks: Iterable[Block]) -> dict[tuple[str, ...], list[float]]:
    """Return the values of the last column, grouped by the columns before it."""
    return gathered([((tuple(key), value) for *key, value in rows_of(block)) for block in blocks])


@dataclass(frozen=True)
class MeanTable:
    """A table of means over items with bootstrap intervals, one row for each key."""

    columns: tuple[str, ...]
    seed: int
    arranged: Callable[[dict[tuple[str, ...], list[float]]], Mapping[tuple[str, ...], Sequence[float]]]
    """A function applied to the values by key before means are taken: it reorders keys, or raises an error for none."""

    def __call__(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the means with their bootstrap intervals."""
        yield block_of(self.columns, estimates(self.arranged(gathered_rows(blocks)), self.seed))


def estimates(values: Mapping[tuple[str, ...], Sequence[float]], seed: int) -> Iterator[Row]:
    """Yield one row per key: the key, its number of values, then `COLUMNS`."""
    for key, each in values.items():
        yield (*key, len(each), float(np.mean(each)), *bootstrap_interval(np.array(each), seed), seed)
