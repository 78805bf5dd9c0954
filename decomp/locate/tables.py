"""Reading tables of layers, neurons and edges, and checking that they were made with the same model and options."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from decomp.core.model import Model
from decomp.io.records import Record, read_records
from decomp.io.texts import suffix_of
from decomp.tables.files import TableFile, columns_of
from decomp.tables.provenance import check_same, read_provenance


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    """Yield the rows of a table (TSV, CSV, JSON lines or Parquet) that has the given columns.

    ValueError for a file that is missing, malformed or empty, or lacks a column.
    """
    if suffix_of(path) != ".parquet":
        yield from read_records(path, columns)
        return
    names = columns_of(path)
    if missing := [name for name in columns if name not in names]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it has {', '.join(names)}")
    for number, row in enumerate(TableFile(path, names).rows(), 1):
        yield Record(f"{path}, row {number}", dict(zip(names, row, strict=True)))


def check_fits(path: Path, command: str, model: Model, options: Mapping[str, Any]) -> None:
    """Raise ValueError, with all differences, for a table made by another command, with another model or other options.

    A table that does not say how it was made is warned of.
    """
    made, about = read_provenance(path), model.about()
    same = made is not None and made.get("model", {}).get("weights") == about["weights"]
    # Other names for the same weights are no difference; for others, the names say which.
    names = ("weights",) if same else ("model", "dtype", "weights")
    expected = {"command": command, "model": {name: about[name] for name in names}, "options": dict(options)}
    check_same(path, made, expected)
