"""Writing long tables: rows a second and bytes a row, for a table of real scores."""

import io
import time
from pathlib import Path

import click

from decomp.runs.tables import open_table_or_run
from decomp.tables.blocks import Block, concatenate, length
from decomp.tables.columns import FORMATS
from decomp.tables.parquet import parquet_writer
from decomp.tables.reduction import Reduction

CASES = {
    "all": Reduction(),
    "--digits 3": Reduction(digits=3),
    "--digits 2": Reduction(digits=2),
    "--min-abs 0.1": Reduction(min_abs=0.1),
    "--top 10": Reduction(top=10),
    "--top 10 --min-abs 0.01 --digits 3": Reduction(top=10, min_abs=0.01, digits=3),
}


def parquet(blocks: list[Block], repeat: int) -> int:
    """Return the bytes of a Parquet file of all blocks, written `repeat` times."""
    file = io.BytesIO()
    with parquet_writer(file, list(blocks[0]), None) as write:
        for block in blocks * repeat:
            write(block)
    return file.tell()


def tsv(blocks: list[Block], repeat: int) -> int:
    """Return the bytes of the same blocks as TSV, written `repeat` times."""
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    write = FORMATS["tsv"](file, list(blocks[0]))
    for block in blocks * repeat:
        write(block)
    file.flush()
    return file.buffer.tell()


@click.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--repeat", default=3, show_default=True, help="How often the table is written.")
def main(table: Path, repeat: int) -> None:
    """Write TABLE (of decomp score, or a run) to memory in each format, reduced and not; processor time of one core."""
    whole = concatenate(list(open_table_or_run(table).blocks()))
    count = length(whole)
    click.echo(f"{count:,} rows\n\n| kept | reducing, M pairs/s | writing, M rows/s | bytes a row | bytes a pair |")
    click.echo("|---|---|---|---|---|")
    for name, reduction in CASES.items():
        began = time.process_time()
        block = reduction(whole)
        seconds = time.process_time() - began
        for format_name, write in (("Parquet", parquet), *((("TSV", tsv),) if name == "all" else ())):
            began = time.process_time()
            size = write([block], repeat) / repeat
            speed = length(block) * repeat / (time.process_time() - began) / 1e6
            reducing = f"{count / seconds / 1e6:.1f}" if reduction != Reduction() else ""
            each = f"{size / length(block):.2f} | {size / count:.2f}"
            click.echo(f"| {name}, {format_name} | {reducing} | {speed:.2f} | {each} |")


if __name__ == "__main__":
    main()
