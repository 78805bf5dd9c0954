"""Rows of a table, column by column: numbers as arrays, each distinct text once.

All operations on long tables work on these blocks, an array at a time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

Row = tuple[Any, ...]
BLOCK = 2**15
"""The number of rows that are converted to arrays, or back, at once."""

Values = Shaped[np.ndarray, " rows"]
"""Numbers and truth values of a column; missing integers are masked, missing real numbers NaN."""

TYPES: dict[str, type] = {
    **dict.fromkeys(("article", "window", "position", "source_position", "distance", "span"), int),
    **dict.fromkeys(("word", "char_start", "char_end", "source_word", "source_length", "dropped"), int),
    **dict.fromkeys(("log2_prob", "score", "entropy", "corrected_log2_prob", "surprisal"), float),
    **dict.fromkeys(("strongest_source_position", "strongest_distance"), int),
    **dict.fromkeys(("strongest_score", "strongest_share", "bos_score", "bos_share"), float),
    **dict.fromkeys(("bias_score", "bias_share"), float),
    **dict.fromkeys(("layer", "neuron", "neurons", "rank", "items", "targets", "cases", "edges", "seed"), int),
    **dict.fromkeys(("log2_odds", "value", "share", "effect", "residual", "factor", "change", "sd"), float),
    **dict.fromkeys(("mean", "low", "high", "loss", "remaining"), float),
    **dict.fromkeys(("prefers_target", "found"), bool),
    "kept": int,
    "source_length": int,
    "log2_prob_without": float,
}
"""The types of columns that are not text."""


@dataclass(frozen=True)
class Texts:
    """A column of texts, each distinct text kept once."""

    codes: Int[np.ndarray, " rows"]
    """Indices into `texts`; −1 for a missing text."""
    texts: tuple[str, ...]

    def __getitem__(self, rows: Any) -> "Texts":
        return Texts(self.codes[rows], self.texts)

    def __len__(self) -> int:
        return len(self.codes)

    def array(self) -> Shaped[np.ndarray, " rows"]:
        """Return the texts as an array of objects, None where one is missing."""
        return np.array([*self.texts, None], dtype=object)[self.codes]


Column = Values | Texts
Block = Mapping[str, Column]
"""Rows of a table: columns by name, all of one length."""


def length(block: Block) -> int:
    """Return the number of rows."""
    return len(next(iter(block.values()), ()))


def take(block: Block, rows: Any) -> dict[str, Column]:
    """Return some rows: those of a slice, with these indices, or where a mask is True."""
    return {name: column[rows] for name, column in block.items()}


def block_of(columns: Sequence[str], rows: Iterable[Row]) -> dict[str, Column]:
    """Return rows as columns, converted a block of rows at a time."""
    builders = [Builder(TYPES.get(name)) for name in columns]
    rows = iter(rows)
    while some := list(islice(rows, BLOCK)):
        for builder, values in zip(builders, zip(*some, strict=True), strict=True):
            builder.add(values)
    return {name: builder.column() for name, builder in zip(columns, builders, strict=True)}


def rows_of(block: Block) -> Iterator[Row]:
    """Yield the rows, with None for missing values and numbers of single precision as their shortest decimals."""
    for start in range(0, length(block), BLOCK):
        some = slice(start, start + BLOCK)
        yield from zip(*(plain(column[some]) for column in block.values()), strict=True)


def concatenate(blocks: Sequence[Block]) -> dict[str, Column]:
    """Return the rows of all blocks as one; the blocks have the same columns."""
    blocks = [block for block in blocks if length(block)] or blocks[:1]
    if len(blocks) == 1:
        return dict(blocks[0])
    return {name: concatenated([block[name] for block in blocks]) for name in blocks[0]}


def concatenated(columns: Sequence[Column]) -> Column:
    """Return the parts of a column as one column, of the kind of a part that has any value."""
    known = [column for column in columns if not (isinstance(column, Texts) and not column.texts)]
    texts = [column for column in columns if isinstance(column, Texts)]
    if not known or len(texts) == len(columns):
        return concatenated_texts(texts)
    if any(column.texts for column in texts):
        raise ValueError("a column has text in some rows and numbers in others: write the table again")
    alike = [none_of(known[0], len(column)) if isinstance(column, Texts) else column for column in columns]
    arrays = [array for array in alike if isinstance(array, np.ndarray)]
    whole = np.concatenate([np.ma.getdata(array) for array in arrays])
    if not any(isinstance(array, np.ma.MaskedArray) for array in arrays):
        return whole
    return np.ma.array(whole, mask=np.concatenate([np.ma.getmaskarray(array) for array in arrays]))


def concatenated_texts(columns: Sequence[Texts]) -> Texts:
    """Return the parts of a column of texts as one column, its distinct texts in order of appearance."""
    codes: dict[str, int] = {}
    own = [np.array([*(codes.setdefault(t, len(codes)) for t in c.texts), -1], np.int32)[c.codes] for c in columns]
    return Texts(np.concatenate(own) if own else np.array([], np.int32), tuple(codes))


def texts_of(texts: Sequence[str | None]) -> Texts:
    """Return texts as a column."""
    codes: dict[str, int] = {}
    own = [-1 if text is None else codes.setdefault(text, len(codes)) for text in texts]
    return Texts(np.array(own, np.int32), tuple(codes))


def constant(value: Any, rows: int) -> Column:
    """Return a column that has one value in all rows."""
    if isinstance(value, str):
        return Texts(np.zeros(rows, np.int32), (value,))
    return np.full(rows, value, np.int32 if type(value) is int and abs(value) < 2**31 else None)


def none_of(column: Column, rows: int) -> Column:
    """Return a column of the same kind with `rows` missing values."""
    if isinstance(column, Texts):
        return Texts(np.full(rows, -1, np.int32), column.texts)
    if column.dtype.kind == "f":
        return np.full(rows, np.nan, column.dtype)
    return np.ma.masked_all(rows, column.dtype)


def without(column: Column, rows: Bool[np.ndarray, " rows"]) -> Column:
    """Return a column with the values in these rows missing."""
    if isinstance(column, Texts):
        return Texts(np.where(rows, np.int32(-1), column.codes), column.texts)
    if column.dtype.kind == "f":
        return np.where(rows, column.dtype.type(np.nan), column)
    return np.ma.array(np.ma.getdata(column), mask=missing(column) | rows) if rows.any() else column


def take_or_missing(column: Column, rows: Int[np.ndarray, " taken"]) -> Column:
    """Return the values of a column in these rows, missing where the row is −1."""
    if not len(column):
        return none_of(column, len(rows))
    return without(column[rows], rows < 0)


def numbers(column: Column) -> Values:
    """Return a column of numbers, with 0 for missing values."""
    assert isinstance(column, np.ndarray)
    return np.ma.filled(column, 0)


def changes(column: Column) -> Bool[np.ndarray, " rows-1"]:
    """Return where the value of a row differs from that of the row before."""
    if isinstance(column, Texts):
        return column.codes[1:] != column.codes[:-1]
    values, none = np.ma.getdata(column), missing(column)
    return ((values[1:] != values[:-1]) & ~(none[1:] & none[:-1])) | (none[1:] != none[:-1])


@dataclass
class Builder:
    """A column that is built from successive parts."""

    kind: type | None
    """The type of the values; None until the first value is known."""
    blocks: list[Any] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)

    def add(self, values: Sequence[Any]) -> None:
        """Append values; None stands for a missing one."""
        if self.kind is None:
            first = next((value for value in values if value is not None), None)
            self.kind = None if first is None else KINDS.get(type(first), str)
        self.blocks.append(self.array(values))

    def array(self, values: Sequence[Any]) -> Any:
        """Return values as an array of the column's type; texts as their codes."""
        if self.kind is float:
            return np.array(values, dtype=np.float64)  # None becomes NaN
        if self.kind is int:
            return integers(values)
        if self.kind is bool:
            return np.array(values, dtype=bool)
        return np.array(
            [-1 if value is None else self.codes.setdefault(value, len(self.codes)) for value in values], np.int32
        )

    def column(self) -> Column:
        """Return all values added so far as one column."""
        if self.kind in (float, int, bool):
            whole: Values = np.ma.concatenate(self.blocks) if self.blocks else np.array([], dtype=self.kind)
            masked = isinstance(whole, np.ma.MaskedArray) and np.ma.is_masked(whole)
            return whole if masked else np.asarray(whole)
        codes = np.concatenate(self.blocks) if self.blocks else np.array([], dtype=np.int32)
        return Texts(codes, tuple(self.codes))


KINDS: dict[type, type] = {int: int, float: float, bool: bool}


def integers(values: Sequence[int | None]) -> Values:
    """Return integers as an array, of 32 bits where they fit, masked where one is None."""
    none = [value is None for value in values]
    whole = np.array([0 if value is None else value for value in values], dtype=np.int64)
    small = whole.astype(np.int32) if len(whole) and np.abs(whole).max() < 2**31 else whole
    return np.ma.array(small, mask=none) if any(none) else small


def missing(column: Column) -> Bool[np.ndarray, " rows"]:
    """Return where a column has no value."""
    if isinstance(column, Texts):
        return column.codes < 0
    if column.dtype.kind == "f":
        return np.isnan(column)
    return np.ma.getmaskarray(column)


def present(column: Column) -> Bool[np.ndarray, " rows"]:
    """Return where a column has a value."""
    return ~missing(column)


def plain(column: Column) -> list[Any]:
    """Return the values of a column as Python objects, None where one is missing."""
    if isinstance(column, Texts):
        return list(column.array())
    values: list[Any] = shortest_decimals(column) if column.dtype == np.float32 else column.tolist()
    return [None if value != value else value for value in values] if column.dtype.kind == "f" else values


def shortest_decimals(values: Values) -> list[float]:
    """Return numbers of single precision as the shortest decimals that are read back as the same numbers."""
    # A list first: NumPy forgets what a signal raises (Ctrl-C, SIGTERM) while it makes its own strings one by one.
    return [float(digits) for digits in values.astype(str).tolist()]


def equal_to(column: Column, value: Any) -> Bool[np.ndarray, " rows"]:
    """Return where a column equals a value."""
    if isinstance(column, Texts):
        code = column.texts.index(value) if value in column.texts else None
        return np.zeros(len(column), dtype=bool) if code is None else column.codes == code
    return np.ma.filled(column == value, False)
