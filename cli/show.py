"""`decomp show`: a table, in the terminal."""

from pathlib import Path

import click

from decomp.cli import kinds, layout, options


@layout.command(
    "show",
    """
    decomp score --text "The keys to the cabinet are on the table." demo-opt -o keys.tsv
    decomp show keys.tsv --target last
    """,
)
@click.argument("table", type=kinds.INPUT)
@options.target
@click.option(
    "--measure",
    shell_complete=kinds.MEASURE.complete,
    help="Measure of the table.  [default: its first; all of contexts]",
)
@click.option("--article", "articles", type=int, multiple=True, help="Show this article, from 0.  [default: all]")
@options.whole_number("--top", "Number of sources of a target, those with the largest absolute scores.", 10)
def command(table: Path, target: int | str | None, measure: str | None, articles: tuple[int, ...], top: int) -> None:
    """Show in the terminal what predictions rest on.

    TABLE is a table of decomp score or contrast, a run's folder, or a stored decomposition. With --target, the
    text in the colours of that token's sources, and these ranked; else a short text in the colours of surprisal,
    and the predictions that rest most on a distant token. Of a table of decomp context, without --target, the
    segments in order of rank. Without colours where NO_COLOR is set, or the output is no terminal.
    """
    from decomp.report.opening import open_shown

    open_shown(table, articles).show(measure, target, top)
