"""`decomp report`: a page that shows tables, runs and decompositions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from decomp.cli import kinds, layout, options
from decomp.corpus.article import Article
from decomp.models.sources import check_name
from decomp.report.page.document import check_page
from decomp.settings import scoring_settings


@layout.command(
    "report",
    """
    decomp report --text "The keys to the cabinet are on the table." demo-opt -o keys.html
    decomp score --text "The cat sat on the mat." demo-opt -o cat.tsv
    decomp report cat.tsv -o cat.html
    """,
)
@click.argument("inputs", nargs=-1, type=kinds.TABLE_OR_MODEL, metavar="[INPUTS]... [MODEL]")
@layout.section(
    "The page",
    click.option("--text", help="Score this text by MODEL, and show that."),
    options.option(
        "-o",
        "--output",
        type=options.FILE,
        default=Path("report.html"),
        help="Page to write.",
    ),
    click.option("--title", help="Title of the page.  [default: the first input's name]"),
    click.option("--article", "articles", type=int, multiple=True, help="Show this article of a long table, from 0."),
    click.option(
        "--items",
        "items_file",
        type=kinds.INPUT,
        help="File of a contrast table's items, whose evidence is underlined.",
    ),
)
@options.measure_options
@options.model_options
@layout.section("Windows", options.bos)
@options.manners
def command(
    inputs: tuple[str, ...],
    text: str | None,
    output: Path,
    title: str | None,
    articles: tuple[int, ...],
    items_file: Path | None,
    overwrite: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Write one HTML page to explore what predictions rest on.

    INPUTS are tables of decomp score or decomp contrast, the folder of a run, or stored decompositions; beside
    these, tables of decomp layers, neurons and edges, each in a tab of its own. The page is one file and needs no
    network: open it in a browser. With --text instead, MODEL scores that text by the measures asked for.
    """
    check_inputs(inputs, text, bool(articles or items_file))
    if text is not None:
        scoring_settings([Article(text)], **settings)
    check_page(output, [] if text is not None else [Path(name) for name in inputs], overwrite)
    from decomp.api import write_report  # imports torch
    from decomp.cli.common import silence_libraries
    from decomp.cli.progress import say_wrote

    shown: dict[str, Any] = {"title": title, "overwrite": overwrite}
    if text is not None:
        silence_libraries()
        write_report(text, output, model=inputs[0], progress=False if quiet else None, **shown, **settings)
    else:
        write_report([Path(name) for name in inputs], output, articles=articles, items=items_file, **shown)
    say_wrote(output, f"{output.stat().st_size / 1000:.0f} kB")


def check_inputs(inputs: Sequence[str], text: str | None, chosen: bool) -> None:
    """Raise UsageError for inputs that don't go together, ValueError for one that does not exist.

    `chosen` says whether articles or items of a table are asked for.
    """
    if text is None and not inputs:
        raise click.UsageError("missing argument: expected INPUTS, or --text TEXT MODEL")
    if text is None:
        for name in inputs:
            kinds.check_there(Path(name))
        return
    if len(inputs) != 1:
        raise click.UsageError("with --text give the model alone: decomp report --text TEXT MODEL")
    if chosen:
        raise click.UsageError("--article and --items choose among tables: leave them out with --text")
    check_name(inputs[0])
