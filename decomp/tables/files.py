"""Tables in files, TSV, CSV, JSONL or Parquet, written and read as streams of rows."""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from math import isfinite
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from decomp.io.files import check_outputs, complete_or_absent
from decomp.io.records import DELIMITERS, LONGEST_FIELD, parse_json
from decomp.io.texts import suffix_of
from decomp.tables.blocks import TYPES, Block, Column, Row, Texts, block_of, rows_of, shortest_decimals
from decomp.tables.columns import COLUMNS, FORMATS, Writer
from decomp.tables.parquet import open_parquet, parquet_blocks, parquet_writer
from decomp.tables.provenance import Made, entry_of, provenance_path, read_provenance, write_provenance

FORMAT_NAMES = (*FORMATS, "parquet")
BATCH = 4096
"""The number of rows that are read at once."""
LONGEST_LINE = 2**24
"""The most characters that a row of a text table may have."""
LONGEST_REASON = 100
"""The most characters of an invalid value that an error shows: a value may be a whole file."""


def format_of(path: Path | None, name: str | None = None) -> str:
    """Return a table's format: the name given, else by the file's suffix, else TSV (standard output, no suffix).

    ValueError for a suffix that belongs to no format.
    """
    suffix = "" if path is None else path.suffix[1:]
    if name is None and suffix and suffix not in FORMAT_NAMES:
        known = ", ".join(f".{known}" for known in FORMAT_NAMES)
        raise ValueError(f"{path}: .{suffix} is no format of a table: use one of {known}, or give --format")
    return name or suffix or "tsv"


def check_table(
    output: Path | None,
    format_name: str | None,
    *others: Path | None,
    inputs: Iterable[Path | str | None] = (),
    overwrite: bool = False,
) -> None:
    """Raise ValueError, before anything is computed, for a table of unknown format or what `check_outputs` refuses.

    `others` are files that the command writes beside the table.
    """
    is_text = format_of(output, format_name) != "parquet"
    if is_text and output is not None and entry_of(beside := provenance_path(output)) is None:
        # What says how a table was made goes where the table goes; one that is left over is nobody's.
        others = (*others, beside)
    check_outputs((output, *others), inputs, overwrite)


@contextmanager
def table_file(path: Path, name: str, columns: Sequence[str], made: Made | None) -> Iterator[Writer]:
    """Open a file for rows that is complete or absent, and that carries the account of how it was made, if any."""
    with (
        whole_table(path, name, made) as beside,
        beside.open("w", encoding="utf-8", newline="") as file,
        table_writer(file, name, columns, made) as write,
    ):
        yield write


@contextmanager
def whole_table(path: Path, name: str, made: Made | None) -> Iterator[Path]:
    """Open a temporary path for the content of a table.

    When it is written, the account of how it was made is put beside the table first, then the table in its place.
    """
    with complete_or_absent(path) as beside:
        yield beside
        if name != "parquet" and made is not None:
            write_provenance(path, made, beside)
        elif entry_of(provenance_path(path)) is not None:
            provenance_path(path).unlink()


@contextmanager
def table_writer(file: TextIO, name: str, columns: Sequence[str], made: Made | None = None) -> Iterator[Writer]:
    """Open a table in a file that is open as text, and give the function that writes rows to it.

    Parquet goes to the bytes below the text, with the account of how it was made in its metadata.
    """
    if name == "parquet":
        with parquet_writer(file.buffer, columns, made) as write:
            yield write
    else:
        yield FORMATS[name](file, columns)


@dataclass(frozen=True)
class TableFile:
    """A long table in a file, read when its rows are asked for."""

    path: Path
    columns: tuple[str, ...]

    def made(self) -> Made | None:
        """Return the account of how the table was made, None for none. ValueError as for `read_provenance`."""
        return read_provenance(self.path)

    def is_single(self) -> bool:
        """Return whether the account beside a text table says that its numbers are of single precision or less."""
        entry = entry_of(provenance_path(self.path))
        made = entry["made"] if entry is not None else {}
        return made.get("model", {}).get("dtype") in ("float32", "bfloat16", "float16")

    def rows(self) -> Iterator[Row]:
        """Yield the rows with numbers as numbers. ValueError as for `blocks`."""
        return chain.from_iterable(map(rows_of, self.blocks()))

    def blocks(self) -> Iterator[Block]:
        """Yield blocks of rows with numbers as numbers. ValueError, naming the rows, for values of another type."""
        if reader_of(self.path) == "parquet":
            yield from parquet_blocks(self.path)
            return
        single = self.is_single()
        kinds = [TYPES.get(name, str) for name in self.columns]
        values, number = READERS[reader_of(self.path)](self.path), 1
        next(values)
        while batch := list(islice(values, BATCH)):
            try:
                columns = [convert(column, kind) for column, kind in zip(zip(*batch, strict=True), kinds, strict=True)]
            except (ValueError, TypeError, OverflowError) as error:
                raise ValueError(
                    f"{self.path}, rows {number} to {number + len(batch) - 1} are no rows of {', '.join(self.columns)} "
                    f"({str(error)[:LONGEST_REASON]}): write the table again"
                ) from error
            block = block_of(self.columns, zip(*columns, strict=True))
            yield in_single_precision(block) if single else block
            number += len(batch)


def convert(column: Sequence[Any], kind: type) -> list[Any]:
    """Return the values of a column as numbers, with None for empty ones, or as text.

    ValueError, TypeError or OverflowError for a value of another type, such as a number that is not finite.
    """
    if kind is str:
        return [value if value is None or isinstance(value, str) else str(value) for value in column]
    return [None if value is None or value == "" else FROM_FILE[kind](value) for value in column]


def whole(value: Any) -> int:
    """Return a value as a whole number. ValueError for one with a fraction."""
    found = int(value)
    if isinstance(value, float) and value != found:
        raise ValueError(f"expected a whole number, not {value}")
    return found


def real(value: Any) -> float:
    """Return a value as a real number. ValueError for one that is infinite or NaN."""
    found = float(value)
    if not isfinite(found):
        raise ValueError(f"expected a finite number, not {value}")
    return found


def in_single_precision(block: Block) -> Block:
    """Return a block with its real numbers in single precision, except in columns that always have double."""

    def single(column: Column) -> Column:
        if isinstance(column, Texts) or column.dtype != np.float64:
            return column
        short = column.astype(np.float32)
        return short if np.array_equal(shortest_decimals(short), column, equal_nan=True) else column

    return {name: single(column) for name, column in block.items()}


def truth(value: Any) -> bool:
    """Return a truth value, also from its spelling in delimited tables. ValueError for anything else."""
    if str(value) not in ("True", "False"):
        raise ValueError(f"expected True or False, not {value!r}")
    return str(value) == "True"


FROM_FILE: dict[type, Callable[[Any], Any]] = {int: whole, float: real, bool: truth}


def open_table(path: Path) -> TableFile:
    """Return the long table in a file. ValueError for a path that is missing, of no known format, or no long table."""
    columns = columns_of(path)
    if missing := [name for name in COLUMNS if name not in columns]:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}: expected a table that decomp score wrote")
    return TableFile(path, columns)


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the columns of the table in a file. ValueError for a path that is missing, or of no known format."""
    if reader_of(path) == "parquet":
        with open_parquet(path) as file:
            return tuple(file.schema_arrow.names)
    return tuple(next(READERS[reader_of(path)](path), ()))


def reader_of(path: Path) -> str:
    """Return the name of a table's format, by its suffix. ValueError for a suffix that belongs to no format."""
    name = suffix_of(path)[1:]
    if name not in FORMAT_NAMES:
        raise ValueError(f"{path} must be one of {', '.join(FORMAT_NAMES)}, by its suffix")
    return name


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file, with their line ends, unpacked where its name ends in `.gz`.

    ValueError for a file that can't be read, and for a line of more than `LONGEST_LINE` characters: a packed file of
    some KiB can unpack to many GiB.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as file:
            while line := file.readline(LONGEST_LINE + 1):
                if len(line) > LONGEST_LINE:
                    raise ValueError(f"{path} has a line of more than {LONGEST_LINE} characters: it is no table")
                yield line
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: write it again") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is truncated or no gzip file: write it again") from error
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from error


def read_delimited(path: Path) -> Iterator[Sequence[Any]]:
    """Yield the columns of a CSV or TSV table, then its rows. ValueError where it is malformed."""
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(read_lines(path), delimiter=DELIMITERS[suffix_of(path)], strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; write it again") from error


def read_json(path: Path) -> Iterator[Sequence[Any]]:
    """Yield the columns of a JSONL table, then its rows. ValueError for a line that is no object with these columns."""
    columns: tuple[str, ...] = ()
    for number, line in enumerate(read_lines(path), 1):
        row = parse_json(line, f"{path}, line {number}")
        if not isinstance(row, dict) or (columns and tuple(row) != columns):
            raise ValueError(f"{path}, line {number} must be an object with {', '.join(columns)}: write it again")
        if not columns:
            columns = tuple(row)
            yield columns
        yield tuple(row.values())


READERS: dict[str, Callable[[Path], Iterator[Sequence[Any]]]] = {
    "tsv": read_delimited,
    "csv": read_delimited,
    "jsonl": read_json,
}
"""Readers of text tables, by suffix: they yield the columns, then the rows."""
