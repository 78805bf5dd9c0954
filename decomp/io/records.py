"""Rows of tables that people bring: CSV, TSV, JSONL, Parquet or Arrow, chosen by the file's suffix."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decomp.io.amounts import format_bytes
from decomp.io.texts import LARGEST_FILE, check_unicode, read_text, suffix_of

DELIMITERS = {".csv": ",", ".tsv": "\t"}
COLUMNAR = (".parquet", ".arrow")
SUFFIXES = (*DELIMITERS, ".jsonl", *COLUMNAR)
LONGEST_FIELD = 2**31 - 1
"""The most characters of a field: a field may be a whole article."""
ROWS_AT_ONCE = 1024
"""Rows of a Parquet file that are read at a time."""


@dataclass(frozen=True)
class Record:
    """One row of a table, with its place for error messages."""

    place: str
    """File and line of the row: `items.csv, line 3`."""
    values: Mapping[str, Any]


Fields = Mapping[str, str] | None
"""The file's own names of columns, by the names used here; None where they are the same."""


def renamed(record: Record, fields: Fields) -> Record:
    """Return a row with its columns renamed to the names used here. ValueError for a column that it lacks."""
    if not fields:
        return record
    values = {name: value for name, value in record.values.items() if name not in fields.values()}
    for ours, theirs in fields.items():
        if theirs not in record.values:
            known = ", ".join(map(str, record.values))
            raise ValueError(f"{record.place} has no column {theirs!r} to be taken as {ours}: it has {known}")
        values[ours] = record.values[theirs]
    return Record(record.place, values)


def read_records(path: Path, required: Sequence[str], *others: Sequence[str], fields: Fields = None) -> list[Record]:
    """Return all rows of a table, each with the `required` columns or with those of one of the `others`.

    The first column of each of the `others` tells whether a row has that form. `fields` maps the names used here to the
    table's own. ValueError for a file that is missing, not UTF-8, of an unknown kind, malformed, empty, or without a
    column.
    """
    if suffix_of(path) not in SUFFIXES:
        raise ValueError(f"{path} must be one of {', '.join(SUFFIXES)}, not {path.suffix or 'without a suffix'!r}")
    records = [renamed(record, fields) for record in rows_in(path)]
    if not records:
        raise ValueError(f"{path} has no rows: expected columns {', '.join(required)}")
    for record in records:
        form = next((other for other in others if other[0] in record.values), required)
        if missing := [name for name in form if record.values.get(name) is None]:
            raise ValueError(f"{record.place} lacks {', '.join(missing)}: it has {', '.join(map(str, record.values))}")
    return records


def rows_in(path: Path, suffix: str | None = None) -> Iterator[Record]:
    """Yield the rows of a table in a file, read as its suffix (or `suffix`) says.

    ValueError for a file that is missing, malformed or too large.
    """
    suffix = suffix or suffix_of(path)
    return columnar_rows(path, suffix) if suffix in COLUMNAR else table_rows(path, read_text(path), suffix)


def columnar_rows(path: Path, suffix: str) -> Iterator[Record]:
    """Yield the rows of a Parquet or Arrow file. ValueError as for `rows_in`."""
    import pyarrow

    number = 0
    try:
        for batch in batches_of(path, suffix):
            for values in batch.to_pylist():
                number += 1
                yield Record(f"{path}, row {number}", values)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, after row {number}, is not UTF-8: write it again") from error
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror or error}") from error
    except (pyarrow.ArrowException, OverflowError) as error:
        raise ValueError(f"{path} is truncated or no {suffix[1:].title()} file ({str(error)[:100]})") from error


def batches_of(path: Path, suffix: str) -> Iterator[Any]:
    """Yield the record batches of a Parquet or Arrow file. ValueError for more than `LARGEST_FILE` bytes."""
    import pyarrow.ipc
    import pyarrow.parquet

    if suffix == ".parquet":
        with pyarrow.parquet.ParquetFile(path) as parquet:
            groups = [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]
            refuse_large(path, sum(group.total_byte_size for group in groups))
            yield from parquet.iter_batches(ROWS_AT_ONCE)
    else:
        with pyarrow.OSFile(str(path)) as file:
            refuse_large(path, file.size())
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            if is_file:
                reader = pyarrow.ipc.open_file(file)
                yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                yield from pyarrow.ipc.open_stream(file)


def refuse_large(path: Path, size: int) -> None:
    """Raise ValueError for a table of more than `LARGEST_FILE` bytes."""
    if size > LARGEST_FILE:
        raise ValueError(f"{path} has more than {format_bytes(LARGEST_FILE)}: split it into several files")


def text_of(record: Record, column: str, *, may_be_blank: bool = False) -> str:
    """Return the text of a row in a column; missing and blank values are refused in the same way by all commands.

    With `may_be_blank`, for columns that a row need not fill, they are the empty string. ValueError, with the place,
    for a number, list or the like, and for a blank value without `may_be_blank`.
    """
    value = record.values.get(column)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{record.place}: {column} must be text, it is {value!r}")
    if value is not None and value.strip():
        return value
    if not may_be_blank:
        raise ValueError(f"{record.place}: {column} is blank: give some text")
    return ""


def table_rows(path: Path, text: str, suffix: str) -> Iterator[Record]:
    """Yield the rows of a table's text; `path` is named in errors. ValueError where it is malformed."""
    return json_rows(path, text) if suffix == ".jsonl" else delimited_rows(path, text, suffix)


def delimited_rows(path: Path, text: str, suffix: str) -> Iterator[Record]:
    """Yield the rows of a CSV or TSV text.

    ValueError for two columns of one name, rows with more fields than columns, and quotes that don't end.
    """
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=DELIMITERS[suffix], strict=True)
    try:
        names = [name for name in reader.fieldnames or () if name]
        if twice := [name for number, name in enumerate(names) if name in names[:number]]:
            raise ValueError(f"{path} has two columns {twice[0]!r}: rename one")
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if beyond := row.pop(None, None):  # where DictReader puts what is too much
                columns = len(row)
                raise ValueError(
                    f"{place} has {columns + len(beyond)} fields, the table has {columns} columns: "
                    f"put fields that hold a {DELIMITERS[suffix]!r} in quotes"
                )
            yield Record(place, row)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; expected {suffix[1:].upper()}") from error


def json_rows(path: Path, text: str) -> Iterator[Record]:
    """Yield the objects of a JSONL text. ValueError for a line that is not a JSON object."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        values = parse_json(line, place)
        if not isinstance(values, dict):
            raise ValueError(f"{place} must be a JSON object, it is {line.strip()[:40]!r}")
        yield Record(place, values)


def parse_json(text: str, place: str) -> Any:
    """Return the value of a JSON text.

    ValueError, with the place, for one that is malformed, nested too deeply, or has half of a surrogate pair.
    """
    try:
        values = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{place} is nested too deeply to be read") from error
    except ValueError as error:
        raise ValueError(f"{place} is not JSON: {error}") from error
    if "\\u" in text:  # the text itself was UTF-8: half a pair can only be an escape
        check_unicode(json.dumps(values, ensure_ascii=False), place)
    return values
