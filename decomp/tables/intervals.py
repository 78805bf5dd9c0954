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
"""In which they are drawn."""
COLUMNS = ("mean", "low", "high", "seed")


def bootstrap_interval(values: Float[np.ndarray, " items"], seed: int, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of the mean over items, drawn anew with replacement `RESAMPLES` times."""
    generator = np.random.default_rng(seed)
    sizes = (RESAMPLES // BLOCKS, len(values))
    means = [values[generator.integers(len(values), size=sizes)].mean(1) for _ in range(BLOCKS)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def gathered(items: Iterable[Iterable[tuple[K, V]]]) -> dict[K, list[V]]:
    """Return all values of each key, the keys in the order in which they first come."""
    found: dict[K, list[V]] = {}
    for item in items:
        for key, value in item:
            found.setdefault(key, []).append(value)
    return found


def gathered_rows(blocks: Iterable[Block]) -> dict[tuple[str, ...], list[float]]:
    """Return all values, the last column, by the key that the columns before are."""
    return gathered([((tuple(key), value) for *key, value in rows_of(block)) for block in blocks])


@dataclass(frozen=True)
class MeanTable:
    """A table of means over items, by the key that each value has."""

    columns: tuple[str, ...]
    seed: int
    arranged: Callable[[dict[tuple[str, ...], list[float]]], Mapping[tuple[str, ...], Sequence[float]]]
    """What becomes of the values before: keys in another order, or an error for none."""

    def __call__(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the means, with their bootstrap intervals."""
        yield block_of(self.columns, estimates(self.arranged(gathered_rows(blocks)), self.seed))


def estimates(values: Mapping[tuple[str, ...], Sequence[float]], seed: int) -> Iterator[Row]:
    """Yield one row per key: the key, how many values it has, and `COLUMNS`."""
    for key, each in values.items():
        yield (*key, len(each), float(np.mean(each)), *bootstrap_interval(np.array(each), seed), seed)
