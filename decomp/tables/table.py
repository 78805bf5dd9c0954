"""The table in memory, column by column, that the Python functions return."""

from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from decomp.io.names import suggested
from decomp.io.views import view
from decomp.tables.blocks import (
    Block,
    Column,
    Row,
    Texts,
    block_of,
    concatenate,
    equal_to,
    length,
    missing,
    present,
    rows_of,
    take,
)
from decomp.tables.files import check_table, format_of, table_file
from decomp.tables.parquet import arrow_column
from decomp.tables.predictors import Predictors, zipf_frequency
from decomp.tables.reduction import whole_targets

if TYPE_CHECKING:
    import pandas
    import pyarrow
    from matplotlib.figure import Figure


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

    data: Block
    about: Mapping[str, Any] = field(default_factory=dict)
    """The account of how the table was made: command, model, options."""

    @classmethod
    def from_rows(cls, columns: Sequence[str], rows: Iterable[Row], about: Mapping[str, Any] | None = None) -> "Table":
        """Return the table of these rows, which are converted a block at a time."""
        return cls(block_of(columns, rows), dict(about or {}))

    @classmethod
    def from_blocks(
        cls, columns: Sequence[str], blocks: Iterable[Block], about: Mapping[str, Any] | None = None
    ) -> "Table":
        """Return the table of these blocks of rows."""
        return cls(concatenate([block_of(columns, []), *blocks]), dict(about or {}))

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns, in order."""
        return tuple(self.data)

    def __len__(self) -> int:
        """Return the number of rows."""
        return length(self.data)

    def __getitem__(self, name: str) -> Shaped[np.ndarray, " rows"]:
        """Return a column as an array. ValueError for a column that the table lacks."""
        column = self.column(name)
        return column.array() if isinstance(column, Texts) else column

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows as named tuples, None where a value is missing."""
        make = namedtuple("Row", self.columns)._make  # type: ignore[attr-defined]
        yield from map(make, rows_of(self.data))

    def __repr__(self) -> str:
        """Return one line: how many rows, of which measures."""
        measures = f" of {', '.join(self.measures())}" if "measure" in self.data else ""
        return f"Table({len(self):,} rows{measures}; columns {', '.join(self.columns)})"

    def _repr_html_(self) -> str | None:
        """Return the page of the first text, for a notebook; None for a table of another kind, and for a long text."""
        shown: str | None = view("frame", self)
        return shown

    def show(self, measure: str | None = None, target: int | str | None = None, top: int = 10) -> None:
        """Show the scores: in a notebook their page, in a terminal the text in colour and ranked sources.

        `measure` is by default the first; `target` the position of one predicted token (or "last"), `top` how many
        of its sources. ValueError for a table without scores, and a measure or target that it has not.
        """
        view("show", self, measure, target, top)

    def plot(self, kind: str = "heat", **options: Any) -> "Figure":
        """Return a matplotlib figure of the scores, as `decomp plot` draws it: heat, arcs, bars or distance.

        Options are `measure`, `target`, `top`, `min_distance`, `hide_bos`, `seed`. ValueError without matplotlib, for
        another kind, and where nothing is left to draw.
        """
        figure: Figure = view("plot", self, kind, **options)
        return figure

    def column(self, name: str) -> Column:
        """Return a column in its own form, texts with their codes. ValueError for a column that the table lacks."""
        if name not in self.data:
            raise ValueError(f"the table has no column {name!r}: {suggested(name, self.columns, 'it has')}")
        return self.data[name]

    def measures(self) -> list[str]:
        """Return the names of the measures in the table, in order of appearance."""
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
        return Table(take(self.data, wanted), {**self.about, **done})

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
        chosen = replace(chosen, data=take(chosen.data, present(chosen.data["source_position"])))
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

    def predictors(self, *, distal: int = 10, spillover: int = 0, frequency: str | None = None) -> "Table":
        """Return one row per word and measure: what regressions of reading times take, see `decomp table --predictors`.

        Sources more than `distal` words back are distal; `spillover` words before give their predictors, too;
        `frequency` is the language of word frequencies, which need wordfreq. ValueError for a table without scores.

        >>> import decomp
        >>> words = decomp.score("The cat sat. It slept.", "demo-opt", unit="word").predictors(spillover=1)
        >>> words["position_in_sentence"].tolist()
        [0, 1, 2, 0, 1]
        """
        self.column("score")
        of_words = Predictors(distal, spillover, zipf_frequency(frequency) if frequency else None)
        about = {**self.about, "table": {**self.about.get("table", {}), "predictors": True}} if self.about else {}
        found = list(of_words(whole_targets([self.data])))
        return Table.from_blocks(of_words.columns(self.columns), found, about)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the table to a file, complete or absent, in the format that its suffix says.

        The formats are .tsv, .csv, .jsonl and .parquet (which needs pyarrow). ValueError for another suffix, a
        folder that is missing, and a file that exists, unless `overwrite`.
        """
        path = Path(path)
        check_table(path, None, overwrite=overwrite)
        with table_file(path, format_of(path), self.columns, self.about or None) as write:
            write(self.data)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a pandas DataFrame: texts as categories, integers with missing values as `Int64`.

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
        """Return a pyarrow Table: texts as dictionaries, missing values null."""
        import pyarrow

        return pyarrow.table({name: arrow_column(column) for name, column in self.data.items()})
