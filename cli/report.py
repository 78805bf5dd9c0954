"""`decomp report`: a page that shows tables, runs and decompositions."""

from pathlib import Path
from typing import Any

import click

from decomp.cli import layout, options


@layout.command(
    "report",
    """
    decomp report --text "The keys to the cabinet are on the table." demo-opt -o keys.html
    decomp score --text "The cat sat on the mat." demo-opt -o cat.tsv
    decomp report cat.tsv -o cat.html
    """,
)
@click.argument("inputs", nargs=-1, metavar="[INPUTS]... [MODEL]")
@layout.section(
    "The page",
    click.option("--text", help="Score this text by MODEL, and show that."),
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        default=Path("report.html"),
        show_default=True,
        help="The page.",
    ),
    click.option("--title", help="Of the page.  [default: the first input's name]"),
    click.option("--article", "articles", type=int, multiple=True, help="Show this article of a long table, from 0."),
    click.option(
        "--items", "items_file", type=click.Path(path_type=Path), help="Items of a contrast table, for their evidence."
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
    from decomp.api import write_report
    from decomp.cli.common import hush_libraries, say

    shown: dict[str, Any] = {"title": title, "overwrite": overwrite}
    if text is not None:
        if len(inputs) != 1:
            raise click.UsageError("with --text give the model alone: decomp report --text TEXT MODEL")
        if articles or items_file is not None:
            raise click.UsageError("--article and --items choose among tables: leave them out with --text")
        hush_libraries()
        write_report(text, output, model=inputs[0], progress=False if quiet else None, **shown, **settings)
    else:
        if not inputs:
            raise click.UsageError("missing argument: expected INPUTS, or --text TEXT MODEL")
        write_report([Path(name) for name in inputs], output, articles=articles, items=items_file, **shown)
    say(f"{output}: {output.stat().st_size / 1000:.0f} kB", quiet)
