"""Tables to be shown: from files, runs and stored decompositions, with some of their articles or all."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decomp.runs.tables import open_table_or_run
from decomp.tables.blocks import Block, numbers, take
from decomp.tables.columns import COLUMNS
from decomp.tables.files import TableFile
from decomp.tables.operations import merge
from decomp.tables.provenance import check_alike, made_together
from decomp.tables.table import Table

if TYPE_CHECKING:
    from decomp.core.decomposition import Decomposition
    from decomp.runs.stored import StoredWindow

STORED = ".safetensors"
"""Suffix of stored decompositions."""


def open_shown(path: Path, articles: Sequence[int] = ()) -> Table:
    """Return the long table in a file or of a run, or that of ΔLP from a stored decomposition.

    ValueError for a path that is none of these or is damaged, and for a table without one of the articles.
    """
    if path.suffix == STORED:
        from decomp.core.decomposition import load  # imports torch
        from decomp.runs.stored import window_of

        return table_of([window_of(load(path), str(path))], articles)
    return open_long([path], articles)


def table_of_decomposition(result: "Decomposition") -> Table:
    """Return the table of ΔLP of a decomposition. ValueError for one that does not record its tokens and window."""
    from decomp.runs.stored import window_of

    return table_of([window_of(result, "the decomposition")])


def table_of(windows: Sequence["StoredWindow"], articles: Sequence[int] = ()) -> Table:
    """Return the table of ΔLP of stored windows. ValueError where none belongs to these articles."""
    return chosen(windows[0].columns, (window.block() for window in windows), windows[0].made(), articles)


def open_long(paths: Sequence[Path], articles: Sequence[int] = ()) -> Table:
    """Return long tables merged into one. ValueError for tables that do not belong together, or lack these articles."""
    files = [open_table_or_run(path) for path in paths]
    made = [file.made() for file in files]
    check_alike(list(zip(paths, made, strict=True)))
    blocks = files[0].blocks() if len(files) == 1 else merge(files)
    return chosen(files[0].columns, blocks, made_together(made, {}), articles, files)


def chosen(
    columns: Sequence[str],
    blocks: Iterable[Block],
    made: Mapping[str, Any] | None,
    articles: Sequence[int],
    files: Sequence[TableFile] = (),
) -> Table:
    """Return the rows of some articles, or of all, as a table. ValueError where it has none of them."""
    kept = (take(block, np.isin(numbers(block["article"]), articles)) if articles else block for block in blocks)
    table = Table.from_blocks(columns, kept, made)
    if articles and not len(table):
        where = f" in {files[0].path}" if files else ""
        raise ValueError(f"there is no article {', '.join(map(str, articles))}{where}: leave --article out to see all")
    return table


def check_long(table: Table) -> None:
    """Raise ValueError for a table that lacks columns of the long table."""
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise ValueError(f"the table lacks the columns {', '.join(missing)}: expected one of scores")
