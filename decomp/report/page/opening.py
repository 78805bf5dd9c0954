"""Pages from files: long tables, runs, stored decompositions, and tables of layers, neurons and edges."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from decomp.core.decomposition import Decomposition, load
from decomp.corpus.contrast_items import Item
from decomp.report.opening import STORED, check_long, open_long, table_of
from decomp.report.page.document import Page
from decomp.report.page.tabs import Tab, kind_of, open_tab
from decomp.report.texts import ShownText, texts_of
from decomp.runs.stored import window_of
from decomp.runs.tables import other_table, table_file_of
from decomp.tables.columns import COLUMNS
from decomp.tables.files import columns_of
from decomp.tables.table import Table


def open_page(paths: Sequence[Path], title: str | None = None, articles: Sequence[int] = ()) -> Page:
    """Return the page of files: long tables and runs (merged), or stored decompositions; and other tables as tabs.

    `articles` are the articles that are shown, by default all. ValueError for files that can't be read or don't belong
    together, and for more text than a page shows.
    """
    if not paths:
        raise ValueError("a report needs something to show: give a table, a run's folder or a decomposition")
    title = title or paths[0].stem
    paths = [path if other_table([path]) is None else table_file_of(path) for path in paths]
    tabs = [path for path in paths if is_tab(path)]
    stored = [path for path in paths if path.suffix == STORED]
    long = [path for path in paths if path not in (*tabs, *stored)]
    if stored and long:
        raise ValueError(f"{stored[0]} is a decomposition and {long[0]} is a table: report each by itself")
    if stored:
        return decompositions_page(
            [load(path) for path in stored], [str(path) for path in stored], title, tabs, articles
        )
    return table_page(open_long(long, articles), title, tabs) if long else Page(title, [], [], {}, opened_tabs(tabs))


def is_tab(path: Path) -> bool:
    """Return whether a file is a table of layers, neurons or edges."""
    if path.is_dir() or path.suffix == STORED:
        return False
    columns = columns_of(path)
    return not set(COLUMNS) <= set(columns) and kind_of(columns) is not None


def opened_tabs(paths: Iterable[Path]) -> list[Tab]:
    """Return tables of layers, neurons and edges as tabs of a page."""
    return [open_tab(path) for path in paths]


def table_page(table: Table, title: str, tabs: Iterable[Path] = ()) -> Page:
    """Return the page of a long table. ValueError for a table that a page can't show."""
    check_long(table)
    return Page(title, texts_of(table), table.measures(), table.about, opened_tabs(tabs))


def decompositions_page(
    results: Sequence[Decomposition],
    names: Sequence[str],
    title: str,
    tabs: Iterable[Path] = (),
    articles: Sequence[int] = (),
) -> Page:
    """Return the page of ΔLP from decompositions, each text with its completeness gap."""
    windows = [window_of(result, name) for result, name in zip(results, names, strict=True)]
    page = table_page(table_of(windows, articles), title, tabs)
    gaps = {f"article {window.window.article}": window.result.completeness_gap() for window in windows}
    texts = [replace(text, completeness_gap=gaps.get(text.name)) for text in page.texts]
    return replace(page, texts=texts)


def underlined(page: Page, items: Sequence[Item]) -> Page:
    """Return the page of a contrast table with the evidence of its items underlined.

    ValueError where the table has an item that is not among `items`.
    """
    named = {f"item {item.name}": item for item in items}
    if unknown := [text.name for text in page.texts if text.name not in named]:
        raise ValueError(f"the items have no {unknown[0]}: give the items that the table was made from")
    return replace(page, texts=[replace(text, evidence=evidence_of(text, named[text.name])) for text in page.texts])


def evidence_of(text: ShownText, item: Item) -> list[int]:
    """Return the places of the evidence: those that share a character with it, wherever it stands in the text as a
    word.
    """
    if not item.evidence:
        return []
    whole = "".join(text.pieces)
    ends = np.cumsum([len(piece) for piece in text.pieces])
    spans = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(item.evidence)}(?!\w)", whole)]
    begins = [end - len(piece.lstrip()) for end, piece in zip(ends, text.pieces, strict=True)]
    return [
        place
        for place, (begin, end) in enumerate(zip(begins, ends, strict=True))
        if any(begin < stop and start < end for start, stop in spans)
    ]


def with_predictions(page: Page, likely: Mapping[int, Sequence[tuple[str, float]]]) -> Page:
    """Return the page of one text with the likeliest tokens at each position and their probabilities."""
    (text,) = page.texts
    predictions = [likely.get(position, ()) for position in text.positions[text.targets].tolist()]
    return replace(page, texts=[replace(text, predictions=predictions)])


def with_gap(page: Page, gap: float) -> Page:
    """Return the page of one text with the completeness gap of its decomposition."""
    (text,) = page.texts
    return replace(page, texts=[replace(text, completeness_gap=gap)])
