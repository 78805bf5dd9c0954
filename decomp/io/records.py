"""Files that people bring: their text, and the rows of tables (CSV, TSV or JSONL, chosen by the file's suffix)."""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STDIN = "-"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl")
LONGEST_FIELD = 2**31 - 1
"""Characters: a field may be a whole article."""


def read_text(path: str | Path) -> str:
    """A file's text, unpacked where its name ends in `.gz`; that of standard input for `-`.

    ValueError for one that is missing, damaged, or not UTF-8.
    """
    name = "standard input" if str(path) == STDIN else str(path)
    try:
        content = sys.stdin.buffer.read() if str(path) == STDIN else Path(path).read_bytes()
        return (gzip.decompress(content) if name.endswith(".gz") else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: invalid byte at offset {error.start}; convert it first") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{name} is truncated or no gzip file: pack it again") from error
    except OSError as error:
        raise ValueError(f"can't read {name}: {error.strerror}") from error


def suffix_of(path: Path) -> str:
    """What a file's name says of its kind, `.gz` aside."""
    return Path(path.name.removesuffix(".gz")).suffix


@dataclass(frozen=True)
class Record:
    """One row, and where it stands, so that an error can name it."""

    place: str
    """`items.csv, line 3`."""
    values: Mapping[str, Any]


def read_records(path: Path, required: Sequence[str], *others: Sequence[str]) -> list[Record]:
    """All rows of a table, each with the `required` columns, or those of another form whose first one it has.

    ValueError for a file that is missing, not UTF-8, of an unknown kind, malformed, empty, or without a column.
    """
    if suffix_of(path) not in SUFFIXES:
        raise ValueError(f"{path} must be one of {', '.join(SUFFIXES)}, not {path.suffix or 'without a suffix'!r}")
    records = list(table_rows(path, read_text(path), suffix_of(path)))
    if not records:
        raise ValueError(f"{path} has no rows: expected columns {', '.join(required)}")
    for record in records:
        form = next((other for other in others if other[0] in record.values), required)
        if missing := [name for name in form if record.values.get(name) is None]:
            raise ValueError(f"{record.place} lacks {', '.join(missing)}: it has {', '.join(map(str, record.values))}")
    return records


def table_rows(path: Path, text: str, suffix: str) -> Iterator[Record]:
    """The rows of a table's text; `path` is for errors. ValueError where it is malformed."""
    return json_rows(path, text) if suffix == ".jsonl" else delimited_rows(path, text, suffix)


def delimited_rows(path: Path, text: str, suffix: str) -> Iterator[Record]:
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=DELIMITERS[suffix], strict=True)
    try:
        for row in reader:
            yield Record(f"{path}, line {reader.line_num}", {k: v for k, v in row.items() if k is not None})
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; expected {suffix[1:].upper()}") from error


def json_rows(path: Path, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path}, line {number} must be a JSON object, it is {line.strip()[:40]!r}")
        yield Record(f"{path}, line {number}", values)
