"""Scores of the segments of contexts, as lines for a terminal, and as texts for a page."""

from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
from jaxtyping import Int

from decomp.corpus.context_items import ANSWER, LEVELS, WITHIN
from decomp.report.readable import one_line, shortened, visible
from decomp.tables.table import Table

WIDEST = 60
"""The most characters of a segment that a line shows."""


def is_context(table: Table) -> bool:
    """Return whether a table holds scores of the segments of contexts."""
    return {"part", "level", "segment"} <= set(table.columns)


def lines_of(table: Table) -> Iterator[str]:
    """Yield the answer of each item, and its segments with ΔLP in bits, in order of rank; those without a rank last."""
    for (item, part), rows in groupby(table, attrgetter("item", "part")):
        for (measure, level), own in groupby(rows, attrgetter("measure", "level")):
            yield from part_lines(f"{one_line(item)}, {part}", measure, level, list(own))


def part_lines(what: str, measure: str, level: str, rows: list[Any]) -> Iterator[str]:
    """Yield the lines of one part of an answer at one level of its context."""
    if level == "segment":
        yield f"{what}, {measure}: {shortened(rows[0].token, WIDEST)}  (log2 probability {rows[0].log2_prob:.1f})"
    for row in sorted(rows, key=lambda row: (row.rank is None, row.rank)):
        rank = "" if row.rank is None else str(row.rank)
        text = "" if row.segment == row.source_token else shortened(row.source_token, WIDEST)
        yield f"{rank:>4} {row.score:+8.2f}  {'  ' * (level != 'segment')}{one_line(row.segment)}  {text}".rstrip()


def finest(table: Table) -> Table:
    """Return the rows of the finest segments and parts of answers, so that each stretch of text has one row.

    A segment that is divided is left out, and its parts stay; so is a whole answer of several sentences.
    """
    keys = list(zip(table["item"], table["segment"], strict=True))
    divided = {(item, name.rpartition(WITHIN)[0]) for item, name in keys}
    sentences = {item for item, part in zip(table["item"], table["part"], strict=True) if part != ANSWER}
    kept = np.array([key not in divided for key in keys])
    whole = np.array([item in sentences for item in table["item"]]) & (table["part"] == ANSWER)
    return Table({name: column[kept & ~whole] for name, column in table.data.items()}, table.about)


def segment_labels(table: Table, positions: Int[np.ndarray, " places"]) -> dict[int, str]:
    """Return the labels of one item's segments and of the parts of its answer, by the place that each begins at.

    The words of a sentence stand together below its name.
    """
    at = np.ma.filled(table["source_position"], -1).tolist()
    names = zip(table["level"], table["segment"], strict=True)
    named = {p: n.rpartition(WITHIN)[0] if level == LEVELS[2] else n for p, (level, n) in zip(at, names, strict=True)}
    named |= dict(zip(table["position"].tolist(), table["part"], strict=True))
    labels = [named[position] if position >= 0 else None for position in positions.tolist()]
    changed = zip(labels, [None, *labels], strict=False)
    return {place: visible(own) for place, (own, before) in enumerate(changed) if own is not None and own != before}
