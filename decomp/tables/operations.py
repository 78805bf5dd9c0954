"""What is done with long tables as streams of rows: merged, thinned out, summarised, a target at a time."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from decomp.tables.columns import Row
from decomp.tables.files import TYPES, TableFile

OF_SOURCES = ("source_word", "source_position", "source_token", "distance", "score")
"""Columns that differ within a target: all rows of one measure for one predicted token."""
SUMMARY = (
    "strongest_source_position",
    "strongest_source_token",
    "strongest_distance",
    "strongest_score",
    "strongest_share",
    "bias_score",
    "bias_share",
)

Target = list[Row]


@dataclass(frozen=True)
class Layout:
    """Which column is where."""

    columns: tuple[str, ...]

    def getter(self, *names: str) -> Callable[[Row], tuple[Any, ...]]:
        """The values of two or more columns."""
        return itemgetter(*map(self.columns.index, names))

    @property
    def of_target(self) -> tuple[str, ...]:
        """The columns that are the same in all rows of a target."""
        return tuple(name for name in self.columns if name not in OF_SOURCES)

    def targets(self, rows: Iterable[Row]) -> Iterator[Target]:
        return (list(group) for _, group in groupby(rows, self.getter(*self.of_target)))


def merge(tables: Sequence[TableFile]) -> Iterator[Target]:
    """The targets of all tables, by article and window; those of one window in the order of the tables.

    ValueError for tables of other columns, out of order, or with the same target twice.
    """
    layout = Layout(tables[0].columns)
    for table in tables[1:]:
        if table.columns != layout.columns:
            raise ValueError(
                f"{table.path} has the columns {', '.join(table.columns)}, {tables[0].path} has "
                f"{', '.join(layout.columns)}: only tables made with the same options can be merged"
            )
    place = layout.getter("article", "window")
    streams = [in_order(table, layout) for table in tables]
    key = layout.getter(*(name for name in layout.of_target if TYPES.get(name) is not float))
    window, seen = None, dict[Row, Path]()
    for path, target in heapq.merge(*streams, key=lambda item: place(item[1][0])):
        if place(target[0]) != window:
            window = place(target[0])
            seen.clear()
        if (own := key(target[0])) in seen:
            article, number, position, measure = layout.getter("article", "window", "position", "measure")(target[0])
            raise ValueError(
                f"{measure} of article {article}, window {number}, position {position} is in {seen[own]} and in "
                f"{path}: give each table once"
            )
        seen[own] = path
        yield target


def in_order(table: TableFile, layout: Layout) -> Iterator[tuple[Path, Target]]:
    place, before = layout.getter("article", "window"), (-1, -1)
    for target in layout.targets(table.rows()):
        if place(target[0]) < before:
            raise ValueError(
                f"{table.path} is not sorted: article {place(target[0])[0]}, window {place(target[0])[1]} comes after "
                f"article {before[0]}, window {before[1]}"
            )
        before = place(target[0])
        yield table.path, target


def thin_out(
    targets: Iterable[Target],
    columns: tuple[str, ...],
    *,
    max_distance: int | None = None,
    min_abs: float = 0,
    top: int | None = None,
) -> Iterator[Target]:
    """Sources near enough, with a score (absolute) large enough, of these the `top` highest; rows that are no token
    stay."""
    if max_distance is None and not min_abs and top is None:
        yield from targets
        return
    distance, score = columns.index("distance"), columns.index("score")
    for target in targets:
        sources = [
            row
            for row in target
            if row[distance] is not None
            and (max_distance is None or row[distance] <= max_distance)
            and abs(row[score]) >= min_abs
        ]
        if top is not None:
            sources = sorted(sources, key=itemgetter(score), reverse=True)[:top]
        kept = set(map(id, sources))
        if rows := [row for row in target if id(row) in kept or row[distance] is None]:
            yield rows


def summary_columns(columns: tuple[str, ...]) -> tuple[str, ...]:
    return (*("surprisal" if name == "log2_prob" else name for name in Layout(columns).of_target), *SUMMARY)


def summarise(targets: Iterable[Target], columns: tuple[str, ...]) -> Iterator[Row]:
    """One row per target: surprisal in bits, the source with the highest score, and what the bias has.

    A share is of the sum of all absolute scores of the target.
    """
    layout = Layout(columns)
    log2_prob = layout.of_target.index("log2_prob")
    of_target = layout.getter(*layout.of_target)
    of_source = layout.getter("source_position", "source_token", "distance", "score")
    token, score = columns.index("source_token"), columns.index("score")
    for target in targets:
        key = list(of_target(target[0]))
        key[log2_prob] = 0.0 - key[log2_prob]
        total = sum(abs(row[score]) for row in target)
        sources = [source for row in target if (source := of_source(row))[2] is not None]
        strongest = max(sources, key=itemgetter(3), default=(None,) * 4)
        bias = next((row[score] for row in target if row[token] == "<bias>"), None)
        yield (*key, *strongest, share(strongest[3], total), bias, share(bias, total))


def share(score: float | None, total: float) -> float | None:
    return None if score is None or total == 0 else abs(score) / total
