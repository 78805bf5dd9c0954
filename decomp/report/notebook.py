"""The display of results: in a notebook the page of one text, in a terminal the same as text."""

import html
import os
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from decomp.core.decomposition import Decomposition
from decomp.report.opening import check_long, table_of_decomposition
from decomp.report.page.document import Page, document
from decomp.report.page.opening import decompositions_page, table_page
from decomp.report.plotting import PlotRequest, picture_of_scores
from decomp.report.terminal import shown
from decomp.tables.columns import COLUMNS
from decomp.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEIGHT = 560
"""The height of the page in a notebook, in pixels."""
MOST_TOKENS = 2000
"""The most predicted tokens of a text that a notebook displays by itself."""
MOST_PAIRS = 20_000
"""The most contributions of a decomposition whose ΔLP a notebook computes by itself."""


def frame(result: Table | Decomposition) -> str | None:
    """Return the page of a result's first text, as HTML that a notebook shows in a frame of its own.

    None, after which the notebook prints the result's one line, for a table that can't be shown, a decomposition that
    does not record its tokens, and a text too long to be displayed by itself.
    """
    try:
        page = short_page(result)
    except ValueError:
        # What a notebook shows unasked must not fail; `show` says what is wrong.
        return None
    if page is None:
        return None
    content = html.escape(document(page), quote=True)
    return (
        f'<iframe srcdoc="{content}" sandbox="allow-scripts allow-downloads" width="100%" height="{HEIGHT}" '
        'style="border: 1px solid #8886; border-radius: 8px"></iframe>'
    )


def short_page(result: Table | Decomposition) -> Page | None:
    """Return the page of a result's first text, None where `frame` displays none."""
    if isinstance(result, Table):
        if not set(COLUMNS) <= set(result.columns) or not len(result):
            return None
        first = result.select(article=int(result["article"][0]))
        return None if len(set(first["position"])) > MOST_TOKENS else table_page(first, "scores")
    if result.unembedding is None or result.tokens is None or "window" not in result.about:
        return None
    kept = sum(len(result.sources(target)) for target in range(len(result)))
    return decompositions_page([result], ["the decomposition"], "ΔLP") if kept <= MOST_PAIRS else None


def show(
    result: Table | Decomposition, measure: str | None = None, target: int | str | None = None, top: int = 10
) -> None:
    """Show a result: its page in a notebook, text in a terminal, in colour unless NO_COLOR is set."""
    table = table_for(result)
    if in_notebook():
        from IPython.display import HTML, display

        display(HTML(frame(result) or html.escape(repr(result))))
        return
    text = shown(table, measure, target, top, shutil.get_terminal_size().columns)
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


def plot(result: Table | Decomposition, kind: str = "heat", **options: Any) -> "Figure":
    """Return a picture of a result's scores. ValueError for an unknown kind, and as for `decomp plot`."""
    if kind not in ("heat", "arcs", "bars", "distance"):
        raise ValueError(f"there is no picture of the kind {kind!r}: choose heat, arcs, bars or distance")
    return picture_of_scores(table_for(result), replace(PlotRequest(kind), **options))


def table_for(result: Table | Decomposition) -> Table:
    """Return a table of scores as it is, a decomposition as its table of ΔLP. ValueError for anything else."""
    if isinstance(result, Decomposition):
        return table_of_decomposition(result)
    check_long(result)
    return result


def in_notebook() -> bool:
    """Return whether this process serves a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config
