"""Tables of layers, neurons and edges, as tabs of the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from decomp.report.readable import pieces_of, spelling_of, visible
from decomp.tables.files import TableFile, columns_of

MOST_ROWS = 500
"""The number of rows that a tab shows: those with the largest absolute scores."""
MOST_READ = 2_000_000
KINDS = {
    "layers": ({"component", "layer", "measure"}, ("score", "mean")),
    "neurons": ({"layer", "neuron", "score"}, ("score",)),
    "edges": ({"source", "destination", "input", "score"}, ("score",)),
}
"""The kinds of tables: columns by which each is told, and the columns that may hold its scores."""


@dataclass(frozen=True)
class Tab:
    """A table as a tab of the page, with its strongest rows first."""

    title: str
    kind: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    total: int
    """The number of rows of the whole table."""
    score: str
    cells: Sequence[tuple[str, int, float]] = ()
    """The cells of a heat map of layers: row (component, role), layer, mean score."""

    def packed(self) -> dict[str, Any]:
        """Return the tab in the form that the page's script reads."""
        return {
            "title": visible(self.title),
            "kind": self.kind,
            "columns": list(self.columns),
            "rows": [[visible(value) if isinstance(value, str) else value for value in row] for row in self.rows],
            "total": self.total,
            "score": self.columns.index(self.score),
            "cells": [list(cell) for cell in self.cells],
        }


def kind_of(columns: Sequence[str]) -> str | None:
    """Return the kind of the table with these columns: "layers", "neurons" or "edges"; None for another."""
    return next((kind for kind, (needed, _) in KINDS.items() if needed <= set(columns)), None)


def open_tab(path: Path) -> Tab:
    """Return a table of `decomp layers`, `neurons` or `edges` as a tab. ValueError for another, and for one without
    rows.
    """
    columns = columns_of(path)
    kind = kind_of(columns)
    if kind is None:
        raise ValueError(f"{path} is no table of decomp layers, neurons or edges: it has {', '.join(columns)}")
    score = next(name for name in KINDS[kind][1] if name in columns)
    read = list(islice(TableFile(path, columns).rows(), MOST_READ))
    if not read:
        raise ValueError(f"{path} has no rows: there is nothing to show")
    values = list(zip(*read, strict=True))
    rows = [list(row) for row in zip(*with_readable_tokens(columns, values), strict=True)]
    place = columns.index(score)
    strongest = sorted(rows, key=lambda row: -abs(row[place] or 0))[:MOST_ROWS]
    return Tab(path.stem, kind, columns, strongest, len(rows), score, cells_of(columns, rows, score))


def with_readable_tokens(columns: Sequence[str], values: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Return the columns' values, with tokens spelled as a person reads them."""
    readable = list(values)
    if "token" in columns:
        place = columns.index("token")
        texts = [text or "" for text in values[place]]
        spelling = spelling_of(texts)
        readable[place] = [pieces_of([text], spelling)[0].strip() for text in texts]
    return readable


def cells_of(columns: Sequence[str], rows: Sequence[Sequence[Any]], score: str) -> list[tuple[str, int, float]]:
    """Return the mean score of each layer by component and role; empty for tables without roles."""
    if "role" not in columns:
        return []
    layer, value = columns.index("layer"), columns.index(score)
    names = [columns.index(name) for name in ("component", "role")]
    groups: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row[layer] is not None and row[value] is not None:
            groups.setdefault((" · ".join(str(row[n]) for n in names), row[layer]), []).append(row[value])
    return [(name, number, sum(values) / len(values)) for (name, number), values in groups.items()]
