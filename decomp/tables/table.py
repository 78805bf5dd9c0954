"""A table in memory, column by column: what the Python functions return."""

from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from decomp.tables.columns import Row
from decomp.tables.files import TYPES, check_table, format_of, need_pyarrow, table_file

if TYPE_CHECKING:
    import pandas
    import pyarrow

BLOCK = 2**15
"""Rows that are turned into arrays, or back, at once."""

Values = Shaped[np.ndarray, " rows"]
"""Numbers and truth values; masked where integers are missing, NaN where real numbers are."""


@dataclass(frozen=True)
class Texts:
    """A column of texts, each kept once."""

    codes: Int[np.ndarray, " rows"]
    """Places in `texts`; −1 for none."""
    texts: tuple[str, ...]

    def __getitem__(self, rows: Any) -> "Texts":
        return Texts(self.codes[rows], self.texts)

    def __len__(self) -> int:
        return len(self.codes)

    def array(self) -> Shaped[np.ndarray, " rows"]:
        """Return the texts as objects, None where there is none."""
        return np.array([*self.texts, None], dtype=object)[self.codes]


Column = Values | Texts


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """A table in memory: numbers as arrays, texts once each.

    `table["score"]` is a column as a numpy array; iteration gives the rows as named tuples, in the order and with
    the values of the file that `save` writes. Missing integers are masked and missing real numbers NaN in
    columns; in rows both are None.

    >>> import decomp
    >>> table = decomp.score("The cat sat.", "demo-opt")
    >>> table.columns[-3:]
    ('log2_prob', 'measure', 'score')
    >>> row = next(iter(table))
    >>> row.token, row.source_token, row.distance
    ('The', '</s>', 1)
    """

    data: Mapping[str, Column]
    about: Mapping[str, Any] = field(default_factory=dict)
    """How the table was made."""

    @classmethod
    def from_rows(cls, columns: Sequence[str], rows: Iterable[Row], about: Mapping[str, Any] | None = None) -> "Table":
        """Return the table of these rows, which are taken a block at a time."""
        builders = [Builder(TYPES.get(name)) for name in columns]
        rows = iter(rows)
        while block := list(islice(rows, BLOCK)):
            for builder, values in zip(builders, zip(*block, strict=True), strict=True):
                builder.add(values)
        made = {name: builder.column() for name, builder in zip(columns, builders, strict=True)}
        return cls(made, dict(about or {}))

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns, in order."""
        return tuple(self.data)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(next(iter(self.data.values()), ()))

    def __getitem__(self, name: str) -> Shaped[np.ndarray, " rows"]:
        """Return a column as an array. ValueError for a column that the table lacks."""
        column = self.column(name)
        return column.array() if isinstance(column, Texts) else column

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows as named tuples, None where a value is missing."""
        make = namedtuple("Row", self.columns)._make  # type: ignore[attr-defined]
        for start in range(0, len(self), BLOCK):
            block = slice(start, start + BLOCK)
            yield from map(make, zip(*(plain(column[block]) for column in self.data.values()), strict=True))

    def __repr__(self) -> str:
        """Return one line: how many rows, of which measures."""
        measures = f" of {', '.join(self.measures())}" if "measure" in self.data else ""
        return f"Table({len(self):,} rows{measures}; columns {', '.join(self.columns)})"

    def column(self, name: str) -> Column:
        """Return a column as it is kept. ValueError for a column that the table lacks."""
        if name not in self.data:
            raise ValueError(f"the table has no column {name!r}: it has {', '.join(self.columns)}")
        return self.data[name]

    def measures(self) -> list[str]:
        """Return the names of the measures in the table, in the order in which they first come."""
        return list(dict.fromkeys(self["measure"]))

    def select(self, **values: Any) -> "Table":
        """Return the rows in which these columns have these values. ValueError for a column that the table lacks.

        >>> import decomp
        >>> len(decomp.score("The cat sat.", "demo-opt").select(distance=1))
        4
        """
        wanted = np.ones(len(self), dtype=bool)
        for name, value in values.items():
            wanted &= equal_to(self.column(name), value)
        own = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
        done = {"table": {**self.about.get("table", {}), **own}} if self.about else {}
        return Table({name: column[wanted] for name, column in self.data.items()}, {**self.about, **done})

    def matrix(
        self, article: int = 0, window: int = 0, measure: str | None = None
    ) -> Float[np.ndarray, "targets sources"]:
        """Return one measure's scores of one window: a row per predicted token, a column per source, oldest first.

        NaN where the table has no score (a source after the prediction, or one that is not kept): a score of 0
        says something else. Rows are in the order of `position`, columns in that of `source_position`; rows of
        the table that are no token (`<bias>`) are left out. `measure` may be left out where there is one.
        ValueError for a window or measure that the table has not.

        >>> import decomp
        >>> decomp.score("The cat sat.", "demo-opt").matrix().shape
        (4, 4)
        """
        chosen = self.select(article=article, window=window, measure=measure or self.only_measure())
        chosen = replace(chosen, data={n: c[present(chosen.data["source_position"])] for n, c in chosen.data.items()})
        if not len(chosen):
            raise ValueError(f"the table has no scores of article {article}, window {window}, measure {measure!r}")
        rows, row = np.unique(chosen["position"], return_inverse=True)
        columns, column = np.unique(np.asarray(chosen["source_position"]), return_inverse=True)
        scores = np.full((len(rows), len(columns)), np.nan)
        scores[row, column] = chosen["score"]
        return scores

    def only_measure(self) -> str:
        """Return the measure of a table that has one. ValueError for a table that has several, or none."""
        measures = self.measures()
        if len(measures) != 1:
            raise ValueError(f"the table has {len(measures)} measures: choose one of {', '.join(measures)}")
        return measures[0]

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the table to a file, complete or absent, in the format that its suffix says.

        The formats are .tsv, .csv, .jsonl and .parquet (which needs pyarrow). ValueError for another suffix, a
        folder that is missing, and a file that exists, unless `overwrite`.
        """
        path = Path(path)
        check_table(path, None, overwrite=overwrite)
        with table_file(path, format_of(path), self.columns, self.about or None) as write:
            write(self)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a pandas DataFrame: texts as categories, integers of which some are missing as `Int64`.

        ValueError without pandas.
        """
        try:
            import pandas
        except ImportError as error:
            raise ValueError("to_pandas needs pandas: pip install 'tokenwise-decomposition[pandas]'") from error

        def series(column: Column) -> Any:
            if isinstance(column, Texts):
                return pandas.Categorical.from_codes(column.codes, column.texts)
            if isinstance(column, np.ma.MaskedArray):
                return pandas.arrays.IntegerArray(np.asarray(column.data, dtype=np.int64), missing(column))
            return column

        return pandas.DataFrame({name: series(column) for name, column in self.data.items()})

    def to_arrow(self) -> "pyarrow.Table":
        """Return a pyarrow Table: texts as dictionaries, missing values null. ValueError without pyarrow."""
        arrow = need_pyarrow()

        def array(column: Column) -> Any:
            if isinstance(column, Texts):
                codes = arrow.array(column.codes, mask=column.codes < 0)
                return arrow.DictionaryArray.from_arrays(codes, arrow.array(column.texts, arrow.string()))
            return arrow.array(np.asarray(column), mask=~present(column))

        return arrow.table({name: array(column) for name, column in self.data.items()})


@dataclass
class Builder:
    """A column that grows by blocks of values."""

    kind: type | None
    """Of the values; None until the first one says it."""
    blocks: list[Any] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)

    def add(self, values: Sequence[Any]) -> None:
        """Take one more block, its missing values None."""
        if self.kind is None:
            first = next((value for value in values if value is not None), None)
            self.kind = None if first is None else KINDS.get(type(first), str)
        self.blocks.append(self.array(values))

    def array(self, values: Sequence[Any]) -> Any:
        """Return a block as an array of the column's kind, of codes for texts."""
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
        """Return all blocks as one column."""
        if self.kind in (float, int, bool):
            whole: Values = np.ma.concatenate(self.blocks) if self.blocks else np.array([], dtype=self.kind)
            masked = isinstance(whole, np.ma.MaskedArray) and np.ma.is_masked(whole)
            return whole if masked else np.asarray(whole)
        codes = np.concatenate(self.blocks) if self.blocks else np.array([], dtype=np.int32)
        return Texts(codes, tuple(self.codes))


KINDS: dict[type, type] = {int: int, float: float, bool: bool}


def integers(values: Sequence[int | None]) -> Values:
    """Return integers in half the room where they fit, masked where one is missing."""
    none = [value is None for value in values]
    whole = np.array([0 if value is None else value for value in values], dtype=np.int64)
    small = whole.astype(np.int32) if len(whole) and np.abs(whole).max() < 2**31 else whole
    return np.ma.array(small, mask=none) if any(none) else small


def missing(column: Column) -> Bool[np.ndarray, " rows"]:
    """Return where a column has no value."""
    if isinstance(column, Texts):
        return column.codes < 0
    if column.dtype == np.float64:
        return np.isnan(column)
    return np.ma.getmaskarray(column)


def present(column: Column) -> Bool[np.ndarray, " rows"]:
    """Return where a column has a value."""
    return ~missing(column)


def plain(column: Column) -> list[Any]:
    """Return a column's values as Python's own, None where one is missing."""
    if isinstance(column, Texts):
        return list(column.array())
    values: list[Any] = column.tolist()
    return [None if value != value else value for value in values] if column.dtype == np.float64 else values


def equal_to(column: Column, value: Any) -> Bool[np.ndarray, " rows"]:
    """Return where a column has this value."""
    if isinstance(column, Texts):
        code = column.texts.index(value) if value in column.texts else None
        return np.zeros(len(column), dtype=bool) if code is None else column.codes == code
    return np.ma.filled(column == value, False)
