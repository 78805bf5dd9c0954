"""`decomp contrast`: why the target and not the foil."""

from pathlib import Path
from typing import Any

import click

from decomp.cli import options


@click.command("contrast")
@click.argument("items", type=click.Path(path_type=Path))
@options.model
@options.results
@options.contrast_options
@options.model_options
@options.manners
def command(
    items: Path,
    model: str,
    output: Path | None,
    format_name: str | None,
    limit: int | None,
    batch_size: int,
    overwrite: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Score every token of a prompt for what it does for a target against a foil (Yin & Neubig 2022).

    ITEMS is a table (.csv, .tsv, .jsonl) with the columns prompt, target, foil, and if you like item, phenomenon,
    evidence; or a BLiMP file as it is. A space is put between the prompt and what follows it, unless the prompt
    ends with whitespace or what follows begins with no letter or digit.

    Writes the table of decomp score with, in front, the item, its phenomenon, the foil, log2 P(target) −
    log2 P(foil) in bits (log2_odds), whether the model prefers the target, and how several tokens are scored.
    """
    from decomp.cli.common import begun, hush_libraries, made_now, progress, say, table
    from decomp.corpus.contrast_items import read_items
    from decomp.jobs import open_contrasting
    from decomp.tables.files import check_table

    read = read_items(items)[:limit]
    check_table(output, format_name, inputs=(items, model), overwrite=overwrite)
    hush_libraries()
    opened = open_contrasting(read, model, **settings)
    count, preferred = len(opened.contrasts), 0
    each = begun(opened.rows_by_item(batch_size))
    made = made_now(opened.model.about())
    with table(output, format_name, opened.contraster.columns, made) as write, progress(count, quiet, "item") as bar:
        for item in each:
            write(item.rows)
            preferred += item.log2_odds > 0
            bar.update()
    say(f"The model prefers the target in {preferred} of {count} items.", quiet)
