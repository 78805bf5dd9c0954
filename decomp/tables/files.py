"""Tables as files, TSV, CSV, JSONL or Parquet: written and read as a stream of rows."""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from decomp.io.records import DELIMITERS, LONGEST_FIELD, suffix_of
from decomp.runs.manifest import open_run
from decomp.tables.columns import COLUMNS, FORMATS, Row, Writer

FORMAT_NAMES = (*FORMATS, "parquet")
BATCH = 4096
"""Rows that are read at once."""
ROW_GROUP = 2**16
"""Rows of a Parquet file that are held at once."""

TYPES: dict[str, type] = {
    **dict.fromkeys(("article", "window", "position", "source_position", "distance", "span"), int),
    **dict.fromkeys(("word", "char_start", "char_end", "source_word"), int),
    **dict.fromkeys(("log2_prob", "score", "entropy", "corrected_log2_prob", "surprisal"), float),
    **dict.fromkeys(("strongest_source_position", "strongest_distance"), int),
    **dict.fromkeys(("strongest_score", "strongest_share", "bias_score", "bias_share"), float),
}
"""Columns that are no text."""


def format_of(path: Path | None, name: str | None = None) -> str:
    """The format asked for by name, else by the file's suffix, else TSV."""
    suffix = "" if path is None else path.suffix[1:]
    return name or (suffix if suffix in FORMAT_NAMES else "tsv")


def need_pyarrow() -> Any:
    """pyarrow with its Parquet module. ValueError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("Parquet needs pyarrow: pip install 'tokenwise-decomposition[parquet]'") from error
    return pyarrow


@contextmanager
def table_writer(file: TextIO, name: str, columns: Sequence[str]) -> Iterator[Writer]:
    """Writes rows as they come, to a file opened as text (of which Parquet takes the bytes)."""
    if name == "parquet":
        with parquet_writer(file, columns) as write:
            yield write
    else:
        yield FORMATS[name](file, columns)


@contextmanager
def parquet_writer(file: TextIO, columns: Sequence[str]) -> Iterator[Writer]:
    """Row groups of equal size; texts as dictionaries."""
    pyarrow = need_pyarrow()
    kinds = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.dictionary(pyarrow.int32(), pyarrow.string())}
    schema = pyarrow.schema([(name, kinds[TYPES.get(name, str)]) for name in columns])
    waiting: list[Row] = []

    with pyarrow.parquet.ParquetWriter(file.buffer, schema) as writer:

        def flush() -> None:
            values = zip(*waiting, strict=True) if waiting else ((),) * len(columns)
            arrays = [pyarrow.array(column, kind) for column, kind in zip(values, schema.types, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            waiting.clear()

        def write(rows: Iterable[Row]) -> None:
            rows = iter(rows)
            while more := list(islice(rows, ROW_GROUP - len(waiting))):
                waiting.extend(more)
                if len(waiting) == ROW_GROUP:
                    flush()

        yield write
        if waiting:
            flush()


@dataclass(frozen=True)
class TableFile:
    """A long table in a file."""

    path: Path
    columns: tuple[str, ...]

    def rows(self) -> Iterator[Row]:
        """The rows, their numbers as numbers. ValueError, naming the rows, for what is none."""
        kinds = [TYPES.get(name, str) for name in self.columns]
        values, number = READERS[reader_of(self.path)](self.path), 1
        next(values)
        while batch := list(islice(values, BATCH)):
            try:
                columns = [convert(column, kind) for column, kind in zip(zip(*batch, strict=True), kinds, strict=True)]
            except ValueError as error:
                raise ValueError(
                    f"{self.path}, rows {number} to {number + len(batch) - 1} are no rows of {', '.join(self.columns)} "
                    f"({error}): write the table again"
                ) from error
            yield from zip(*columns, strict=True)
            number += len(batch)


@dataclass(frozen=True)
class RunTable(TableFile):
    """The table of a complete run, one of whose parts is open at a time."""

    parts: tuple[Path, ...]

    def rows(self) -> Iterator[Row]:
        for part in self.parts:
            yield from TableFile(part, self.columns).rows()


def convert(column: Sequence[Any], kind: type) -> list[Any]:
    """A column's values as numbers or text, empty ones of numbers as None."""
    if kind is str:
        return [value if value is None or isinstance(value, str) else str(value) for value in column]
    return [None if value is None or value == "" else kind(value) for value in column]


def open_table(path: Path) -> TableFile:
    """Of a file, or of a run's folder. ValueError for what is missing, of no known format, or no long table."""
    if path.is_dir():
        parts = tuple(part for part in open_run(path).parts() if part.stat().st_size)
        return RunTable(path, open_table(parts[0]).columns, parts)
    columns = tuple(next(READERS[reader_of(path)](path), ()))
    if missing := [name for name in COLUMNS if name not in columns]:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}: expected a table that decomp score wrote")
    return TableFile(path, columns)


def reader_of(path: Path) -> str:
    name = suffix_of(path)[1:]
    if name not in READERS:
        raise ValueError(f"{path} must be one of {', '.join(READERS)}, by its suffix")
    return name


def read_lines(path: Path) -> Iterator[str]:
    """Lines as they are in the file, unpacked where its name ends in `.gz`."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: write it again") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is truncated or no gzip file: write it again") from error
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from error


def read_delimited(path: Path) -> Iterator[Sequence[Any]]:
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(read_lines(path), delimiter=DELIMITERS[suffix_of(path)], strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; write it again") from error


def read_json(path: Path) -> Iterator[Sequence[Any]]:
    columns: tuple[str, ...] = ()
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict) or (columns and tuple(row) != columns):
            raise ValueError(f"{path}, line {number} must be an object with {', '.join(columns)}: write it again")
        if not columns:
            columns = tuple(row)
            yield columns
        yield tuple(row.values())


def read_parquet(path: Path) -> Iterator[Sequence[Any]]:
    pyarrow = need_pyarrow()
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except OSError as error:
        raise ValueError(f"can't read {path}: {error}") from error
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is truncated or no Parquet file ({error}): write it again") from error
    with file:
        yield tuple(file.schema_arrow.names)
        for batch in file.iter_batches(BATCH):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


READERS: dict[str, Callable[[Path], Iterator[Sequence[Any]]]] = {
    "tsv": read_delimited,
    "csv": read_delimited,
    "jsonl": read_json,
    "parquet": read_parquet,
}
"""By suffix: first the columns, then the rows."""
