"""`decomp table`: tables converted, merged, thinned out, summarised."""

from pathlib import Path
from typing import Any

import click

from decomp.cli import options


@click.command("table")
@click.argument("tables", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.output
@options.table_format
@options.reduction_options
@click.option("--summary", is_flag=True, help="One row per target, to start a regression from.")
@click.option("--mixed", is_flag=True, help="Merge tables of other models, corpora or options, too.")
@options.overwrite
def command(
    tables: tuple[Path, ...],
    output: Path | None,
    format_name: str | None,
    summary: bool,
    mixed: bool,
    overwrite: bool,
    **kept: Any,
) -> None:
    """Convert TABLES of decomp score; several are merged, by article and window.

    Reads and writes TSV, CSV, JSONL and Parquet (by suffix; .gz is unpacked), as a stream. The folder of a run
    (decomp score --run) is the table of all its parts. Rows that are no token (<bias>) and those of the
    beginning-of-sequence token stay whatever is left out, and are none of the sources that --top counts; the others
    that are left out have a row <dropped> with their sum. A summary has
    per target and measure the surprisal (and what --entropy and --corrected of decomp score added), the source of
    the highest score among those kept (never the beginning-of-sequence token, which has its own columns), its
    distance, and the bias; shares are of the sum of all absolute scores of the table, kept or not.
    """
    from decomp.cli.common import table as table_to
    from decomp.runs.tables import open_table_or_run
    from decomp.tables.files import check_table
    from decomp.tables.operations import merge
    from decomp.tables.provenance import check_alike, made_together
    from decomp.tables.reduction import Reduction
    from decomp.tables.summary import summarise, summary_columns, warn_of_thinned

    reduction = Reduction(**kept)
    opened = [open_table_or_run(path) for path in tables]
    check_table(output, format_name, inputs=tables, overwrite=overwrite)
    made = [table.made() for table in opened]
    if not mixed:
        check_alike(list(zip(tables, made, strict=True)))
    columns = reduction.columns(opened[0].columns)
    done = {name: value for name, value in {**kept, "summary": summary}.items() if value}
    made_of_all = made_together(made, done)
    if summary:
        warn_of_thinned(list(zip(tables, made, strict=True)))
        columns = summary_columns(columns)
    blocks = merge(opened)
    with table_to(output, format_name, columns, made_of_all) as write:
        for block in summarise(blocks, reduction) if summary else map(reduction, blocks):
            write(block)
