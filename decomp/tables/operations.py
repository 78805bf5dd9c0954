"""What is done with long tables as streams of rows: merged, thinned out, summarised, a target at a time."""

import heapq
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from decomp.tables.columns import Row
from decomp.tables.files import TYPES, TableFile
from decomp.tables.provenance import Made

OF_SOURCES = ("source_word", "source_position", "source_token", "distance", "score")
"""Columns that differ within a target: all rows of one measure for one predicted token."""
SUMMARY = (
    "strongest_source_position",
    "strongest_source_token",
    "strongest_distance",
    "strongest_score",
    "strongest_share",
    "bos_score",
    "bos_share",
    "bias_score",
    "bias_share",
)
BOS_POSITION = -1
"""`source_position` of the beginning-of-sequence token: models park there what they have no other place for, so that it
is shown, and never counts as one of the strongest sources."""

THINNING = ("max_distance", "min_abs", "top")
Target = list[Row]

logger = logging.getLogger(__name__)


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


def keeper(
    columns: tuple[str, ...], *, max_distance: int | None = None, min_abs: float = 0, top: int | None = None
) -> Callable[[Target], Target]:
    """Return what thins a target out: sources near enough, large enough, and of these the highest are kept.

    `max_distance` is in tokens (words), `min_abs` the least absolute score, `top` how many sources are kept; the
    beginning-of-sequence token is not among these and stays, as do rows that are no token (`<bias>`).
    """
    distance, score, position = (columns.index(name) for name in ("distance", "score", "source_position"))

    def passes(row: Row) -> bool:
        near = max_distance is None or row[distance] <= max_distance
        return near and abs(row[score]) >= min_abs

    def kept(target: Target) -> Target:
        dropped = {id(row) for row in target if row[distance] is not None and not passes(row)}
        if top is not None:
            tokens = [row for row in target if row[position] not in (None, BOS_POSITION) and id(row) not in dropped]
            dropped |= {id(row) for row in sorted(tokens, key=itemgetter(score), reverse=True)[top:]}
        return [row for row in target if id(row) not in dropped]

    return kept


def thin_out(targets: Iterable[Target], keep: Callable[[Target], Target]) -> Iterator[Target]:
    """Yield what is kept of each target, where that is anything."""
    return filter(None, map(keep, targets))


def summary_columns(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns of a summary of a table with these columns."""
    return (*("surprisal" if name == "log2_prob" else name for name in Layout(columns).of_target), *SUMMARY)


def summarise(
    targets: Iterable[Target],
    columns: tuple[str, ...],
    keep: Callable[[Target], Target] = list,
) -> Iterator[Row]:
    """Yield one row per target: surprisal in bits, the source with the highest score, and what BOS and the bias have.

    The strongest source is one of those kept, and never the beginning-of-sequence token; missing where there is none.
    A share is of the sum of all absolute scores of the target, kept or not.
    """
    layout = Layout(columns)
    log2_prob = layout.of_target.index("log2_prob")
    of_target = layout.getter(*layout.of_target)
    of_source = layout.getter("source_position", "source_token", "distance", "score")
    token, position, score = (columns.index(name) for name in ("source_token", "source_position", "score"))
    for target in targets:
        key = list(of_target(target[0]))
        key[log2_prob] = 0.0 - key[log2_prob]
        total = sum(abs(row[score]) for row in target)
        sources = [row for row in keep(target) if row[position] not in (None, BOS_POSITION)]
        strongest = max(map(of_source, sources), key=itemgetter(3), default=(None,) * 4)
        bos = next((row[score] for row in target if row[position] == BOS_POSITION), None)
        bias = next((row[score] for row in target if row[token] == "<bias>" and row[position] is None), None)
        yield (
            *key, *strongest, share(strongest[3], total), bos, share(bos, total), bias, share(bias, total)
        )  # fmt: skip


def share(score: float | None, total: float) -> float | None:
    """Return the share of a score in the sum of all absolute ones, None where there is no score, or no sum."""
    return None if score is None or total == 0 else abs(score) / total


def warn_of_thinned(tables: Sequence[tuple[Path, Made | None]]) -> None:
    """Warn of tables that were thinned out when they were made: shares are of the rows that are left."""
    for path, made in tables:
        if done := {name: value for name, value in (made or {}).get("table", {}).items() if name in THINNING}:
            thinned = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in done.items())
            logger.warning("%s was thinned out before (%s): shares are of the rows that are left", path, thinned)
