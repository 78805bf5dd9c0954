"""Long tables made smaller as they are written: near sources, high scores, few digits; the sum of what goes stays."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from decomp.tables.blocks import Block, Column, Texts, changes, concatenate, length, numbers, present, take, without

BOS_POSITION = -1
"""`source_position` of the beginning-of-sequence token: models park there what they have no other place for, so that it
is shown, and never counts as one of the strongest sources."""
DROPPED = "<dropped>"
"""Stands for all sources of a target that are left out: its score is the sum of theirs."""
OF_SOURCES = ("source_word", "source_length", "source_position", "source_token", "distance", "score", "dropped")
"""Columns that differ within a target: all rows of one measure for one predicted token."""


@dataclass(frozen=True)
class Reduction:
    """Which sources of each target have rows of their own, and with how many digits.

    What is no token (`<bias>`) and the beginning-of-sequence token are not sources in this sense: they always stay.
    ValueError for numbers that keep nothing, or have no meaning.
    """

    top: int | None = None
    """How many, those with the highest scores,"""
    min_abs: float = 0.0
    """with a score of at least this absolute value,"""
    min_distance: int | None = None
    """so many tokens (words) back or more,"""
    max_distance: int | None = None
    """or less."""
    digits: int | None = None
    """After the point, of all real numbers."""

    def __post_init__(self) -> None:
        for name in ("top", "min_distance", "max_distance"):
            number = getattr(self, name)
            if number is not None and not (isinstance(number, int) and number >= 1):
                raise ValueError(f"{name} must be at least 1, not {number!r}")
        if not 0 <= self.min_abs < np.inf:
            raise ValueError(f"min_abs must be a finite number from 0, not {self.min_abs!r}")
        if self.digits is not None and not (isinstance(self.digits, int) and 0 <= self.digits <= 15):
            raise ValueError(f"digits must be from 0 to 15, not {self.digits!r}")
        if self.min_distance and self.max_distance and self.min_distance > self.max_distance:
            raise ValueError(
                f"no source is at least {self.min_distance} and at most {self.max_distance} back: "
                "take a min_distance up to max_distance"
            )

    @property
    def drops(self) -> bool:
        """Return whether sources may be left out."""
        return (self.top, self.min_distance, self.max_distance) != (None, None, None) or self.min_abs > 0

    def columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Return the columns that are left of these: in front `dropped`, how many sources are left out."""
        return ("dropped", *columns) if self.drops and "dropped" not in columns else columns

    def __call__(self, block: Block) -> Block:
        """Return the rows of whole targets, reduced."""
        if self.drops and length(block):
            block = self.drop(block)
        return block if self.digits is None else rounded(block, self.digits)

    def drop(self, block: Block) -> Block:
        """Return rows without the sources that are left out, and per target one row with their number and sum."""
        group = np.cumsum(np.append(0, first_rows(block)[1:]))
        kept = self.kept(block, group)
        before = is_dropped(block)
        gone, count = ~kept, int(group[-1]) + 1
        score, said = numbers(block["score"]), block.get("dropped", np.zeros(len(group), np.int32))
        counts = np.bincount(group[gone], np.where(before, numbers(said), 1)[gone], count).astype(np.int32)
        sums = np.bincount(group[gone], score[gone], count).astype(score.dtype)
        none = np.ma.masked_all(length(block), np.int32)
        rows = {"dropped": none, **block, **({"dropped": none} if "dropped" in block else {})}
        (some,) = counts.nonzero()
        last = take(rows, np.searchsorted(group, some, side="right") - 1)
        own: dict[str, Column] = {
            "source_token": Texts(np.zeros(len(some), np.int32), (DROPPED,)),
            "score": sums[some],
            "dropped": counts[some],
        }
        of_source = [name for name in OF_SOURCES if name in rows and name not in own]
        last |= own | {name: without(last[name], np.ones(len(some), bool)) for name in of_source}
        together = concatenate([take(rows, kept), last])
        return take(together, np.argsort(np.append(group[kept], some), kind="stable"))

    def kept(self, block: Block, group: Int[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
        """Return which rows stay; `group` numbers the targets."""
        score, distance = numbers(block["score"]), numbers(block["distance"])
        is_source = present(block["distance"]) & (numbers(block["source_position"]) != BOS_POSITION)
        fits = is_source & (np.abs(score) >= self.min_abs) if self.min_abs else is_source.copy()
        if self.min_distance is not None:
            fits &= distance >= self.min_distance
        if self.max_distance is not None:
            fits &= distance <= self.max_distance
        if self.top is not None:
            (candidates,) = fits.nonzero()
            ranked = candidates[np.lexsort((-score[candidates], group[candidates]))]
            starts = np.append(True, np.diff(group[ranked]) > 0).nonzero()[0]
            rank = np.arange(len(ranked)) - np.repeat(starts, np.diff(np.append(starts, len(ranked))))
            fits[ranked[rank >= self.top]] = False
        return (fits | ~is_source) & ~is_dropped(block)


NOTHING_DROPPED = Reduction()


def is_dropped(block: Block) -> Bool[np.ndarray, " rows"]:
    """Return which rows stand for sources that were left out before."""
    return named(block, DROPPED) & ~present(block["distance"])


def named(block: Block, token: str) -> Bool[np.ndarray, " rows"]:
    """Return which rows have this `source_token`; a token of a text may be spelled like what is no token."""
    tokens = block["source_token"]
    assert isinstance(tokens, Texts)
    return np.array([*(text == token for text in tokens.texts), False])[tokens.codes]


def first_rows(block: Block) -> Bool[np.ndarray, " rows"]:
    """Return which rows are the first of their target: where a column that is not of the source changes."""
    first = np.zeros(length(block), bool)
    first[:1] = True
    for name, column in block.items():
        if name not in OF_SOURCES:
            first[1:] |= changes(column)
    return first


def whole_targets(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield the rows cut otherwise: no target is in two blocks."""
    rest: Block | None = None
    for block in blocks:
        block = block if rest is None else concatenate([rest, block])
        last = int(first_rows(block).nonzero()[0][-1]) if length(block) else 0
        if last:
            yield take(block, slice(0, last))
        rest = take(block, slice(last, None))
    if rest is not None and length(rest):
        yield rest


def rounded(block: Block, digits: int) -> Block:
    """Return a block whose real numbers have so many digits after the point, and no negative zero."""

    def round_column(column: Column) -> Column:
        if isinstance(column, Texts) or column.dtype.kind != "f":
            return column
        return (np.round(column.astype(np.float64), digits) + 0.0).astype(column.dtype)

    return {name: round_column(column) for name, column in block.items()}
