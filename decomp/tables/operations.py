"""Merging of long tables, as streams of blocks."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from pathlib import Path

from decomp.tables.blocks import TYPES, Block, Row, changes, constant, length, rows_of, take
from decomp.tables.files import TableFile
from decomp.tables.provenance import Made
from decomp.tables.reduction import OF_SOURCES, first_rows, whole_targets

WindowNumber = tuple[int, int]
"""Article and window."""


@dataclass(frozen=True)
class ModelTable(TableFile):
    """A table with the name of its model as a column in front."""

    table: TableFile
    model: str

    def blocks(self) -> Iterator[Block]:
        """Yield the rows of the table, with the column of the model."""
        for block in self.table.blocks():
            yield {"model": constant(self.model, length(block)), **block}


def with_models(tables: Sequence[TableFile], made: Sequence[Made | None]) -> list[TableFile]:
    """Return tables of several models with a column `model` in front.

    Tables of one model, and those of which not all record their model, are returned as they are.
    """
    names = [None if one is None else one.get("model", {}).get("model") for one in made]
    if None in names or len(set(names)) < 2 or any("model" in table.columns for table in tables):
        return list(tables)
    return [
        ModelTable(table.path, ("model", *table.columns), table, str(name))
        for table, name in zip(tables, names, strict=True)
    ]


def merge(tables: Sequence[TableFile]) -> Iterator[Block]:
    """Yield the targets of all tables, by article and window; those of one window in the order of the tables.

    A target's rows are never split. ValueError for tables with different columns, out of order, or with the same target
    twice.
    """
    columns = tables[0].columns
    for table in tables[1:]:
        if table.columns != columns:
            raise ValueError(
                f"{table.path} has the columns {', '.join(table.columns)}, {tables[0].path} has "
                f"{', '.join(columns)}: only tables made with the same options can be merged"
            )
    names = tuple(name for name in columns if name not in OF_SOURCES and TYPES.get(name) is not float)
    window, seen = (-1, -1), dict[Row, Path]()
    for number, path, block in heapq.merge(*map(windows_in_order, tables), key=itemgetter(0)):
        if number != window:
            window = number
            seen.clear()
        refuse_twice(block, names, path, seen)
        yield {name: block[name] for name in columns}


def refuse_twice(block: Block, names: Sequence[str], path: Path, seen: dict[Row, Path]) -> None:
    """Add the targets of a block to `seen`. ValueError for one that is already there."""
    first = take({name: block[name] for name in names}, first_rows(block))
    key = itemgetter(*(names.index(name) for name in ("article", "window", "position", "measure")))
    for target in rows_of(first):
        if target in seen:
            article, number, position, measure = key(target)
            raise ValueError(
                f"{measure} of article {article}, window {number}, position {position} is in {seen[target]} and in "
                f"{path}: give each table once"
            )
        seen[target] = path


def windows_in_order(table: TableFile) -> Iterator[tuple[WindowNumber, Path, Block]]:
    """Yield the rows of one window at a time, with its article and number. ValueError for windows out of order."""
    before = (-1, -1)
    for block in whole_targets(table.blocks()):
        numbers = {"article": block["article"], "window": block["window"]}
        starts = (changes(numbers["article"]) | changes(numbers["window"])).nonzero()[0] + 1
        for start, stop in pairwise([0, *starts.tolist(), length(block)]):
            ((article, window),) = rows_of(take(numbers, slice(start, start + 1)))
            if (article, window) < before:
                raise ValueError(
                    f"{table.path} is not sorted: article {article}, window {window} comes after "
                    f"article {before[0]}, window {before[1]}"
                )
            before = (article, window)
            yield before, table.path, take(block, slice(start, stop))
