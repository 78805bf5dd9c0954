"""Smaller long tables: near sources, high scores, few digits, and the sum of what is left out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from decomp.tables.blocks import Block, Column, Texts, changes, concatenate, length, numbers, present, take, without

BOS_POSITION = -1
"""The `source_position` of the beginning-of-sequence token.

Models park there what they have no other place for, so that it is shown, and never counts as one of the strongest
sources.
"""
DROPPED = "<dropped>"
"""The `source_token` of the row that stands for all left-out sources of a target: its score is their sum."""
OF_SOURCES = ("source_word", "source_length", "source_position", "source_token", "distance", "score", "dropped")
"""Columns that differ within a target, that is, among the rows of one measure for one predicted token."""


@dataclass(frozen=True)
class Reduction:
    """The choice of sources that keep rows of their own, and of the digits of numbers.

    Rows that are not tokens (`<bias>`) and the beginning-of-sequence token always stay. ValueError for numbers that
    keep nothing, or have no meaning.
    """

    top: int | None = None
    """The number of sources kept for each target, those with the highest scores; None for all."""
    min_abs: float = 0.0
    """The least absolute score of a source that is kept."""
    min_distance: int | None = None
    """The least distance, in tokens (words), of a source that is kept; None for no bound."""
    max_distance: int | None = None
    """The largest distance, in tokens (words), of a source that is kept; None for no bound."""
    digits: int | None = None
    """The number of digits after the point of all real numbers; None for all digits."""

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
        """Return whether any source may be left out."""
        return (self.top, self.min_distance, self.max_distance) != (None, None, None) or self.min_abs > 0

    def columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Return the columns of the reduced table: `dropped`, the number of sources left out, then these."""
        return ("dropped", *columns) if self.drops and "dropped" not in columns else columns

    def __call__(self, block: Block) -> Block:
        """Return the rows of whole targets without the sources that are left out, rounded."""
        if self.drops and length(block):
            block = self.drop(block)
        return block if self.digits is None else rounded(block, self.digits)

    def drop(self, block: Block) -> Block:
        """Return the rows that are kept, and for each target one row with the number and sum of those left out."""
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
        """Return which rows are kept; `group` is the number of each row's target."""
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
    """Return which rows stand for sources that an earlier reduction left out."""
    return named(block, DROPPED) & ~present(block["distance"])


def named(block: Block, token: str) -> Bool[np.ndarray, " rows"]:
    """Return which rows have this `source_token` and are not tokens of the text, which may be spelled alike."""
    tokens = block["source_token"]
    assert isinstance(tokens, Texts)
    return np.array([*(text == token for text in tokens.texts), False])[tokens.codes]


def first_rows(block: Block) -> Bool[np.ndarray, " rows"]:
    """Return which rows are the first of their target: where any column that is not about the source changes."""
    first = np.zeros(length(block), bool)
    first[:1] = True
    for name, column in block.items():
        if name not in OF_SOURCES:
            first[1:] |= changes(column)
    return first


def whole_targets(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield the same rows in other blocks, so that no target's rows are in two."""
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
    """Return a block with its real numbers rounded to `digits` after the point, without negative zero."""

    def round_column(column: Column) -> Column:
        if isinstance(column, Texts) or column.dtype.kind != "f":
            return column
        return (np.round(column.astype(np.float64), digits) + 0.0).astype(column.dtype)

    return {name: round_column(column) for name, column in block.items()}
