"""`decomp table`: tables converted, merged, thinned out, summarised."""

from itertools import chain
from pathlib import Path

import click

from decomp.cli import options


@click.command("table")
@click.argument("tables", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.output
@options.table_format
@click.option("--max-distance", type=click.IntRange(1), help="Keep sources at most so many tokens (words) back.")
@click.option("--min-abs", type=click.FloatRange(0), default=0.0, help="Keep scores of at least this absolute value.")
@click.option("--top", type=click.IntRange(1), help="Keep the sources of each target with the highest scores.")
@click.option("--summary", is_flag=True, help="One row per target, to start a regression from.")
@click.option("--mixed", is_flag=True, help="Merge tables of other models, corpora or options, too.")
@options.overwrite
def command(
    tables: tuple[Path, ...],
    output: Path | None,
    format_name: str | None,
    max_distance: int | None,
    min_abs: float,
    top: int | None,
    summary: bool,
    mixed: bool,
    overwrite: bool,
) -> None:
    """Convert TABLES of decomp score; several are merged, by article and window.

    Reads and writes TSV, CSV, JSONL and Parquet (by suffix; .gz is unpacked), as a stream. The folder of a run
    (decomp score --run) is the table of all its parts. Rows that are no token (<bias>) stay whatever is filtered;
    the beginning-of-sequence token is none of the sources that --top counts, and stays beside them. A summary has
    per target and measure the surprisal (and what --entropy and --corrected of decomp score added), the source of
    the highest score among those kept (never the beginning-of-sequence token, which has its own columns), its
    distance, and the bias; shares are of the sum of all absolute scores of the table, kept or not.
    """
    from decomp.cli.common import table as table_to
    from decomp.runs.tables import open_table_or_run
    from decomp.tables.files import check_table
    from decomp.tables.operations import keeper, merge, summarise, summary_columns, thin_out, warn_of_thinned
    from decomp.tables.provenance import check_alike, made_together

    opened = [open_table_or_run(path) for path in tables]
    check_table(output, format_name, inputs=tables, overwrite=overwrite)
    made = [table.made() for table in opened]
    if not mixed:
        check_alike(list(zip(tables, made, strict=True)))
    columns = opened[0].columns
    keep = keeper(columns, max_distance=max_distance, min_abs=min_abs, top=top)
    done = {"max_distance": max_distance, "min_abs": min_abs, "top": top, "summary": summary}
    together = made_together(made, {name: value for name, value in done.items() if value})
    if summary:
        warn_of_thinned(list(zip(tables, made, strict=True)))
    with table_to(output, format_name, summary_columns(columns) if summary else columns, together) as write:
        targets = merge(opened)
        write(summarise(targets, columns, keep) if summary else chain.from_iterable(thin_out(targets, keep)))
