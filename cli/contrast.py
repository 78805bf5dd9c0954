"""`decomp contrast`: why the target and not the foil."""

from itertools import chain, islice
from pathlib import Path
from typing import Any

import click

from decomp.cli import options


@click.command("contrast")
@click.argument("items", type=click.Path(path_type=Path))
@options.model
@options.output
@options.table_format
@options.contrast_options
@options.model_options
@options.overwrite
@options.quiet
def command(
    items: Path,
    model: str,
    output: Path | None,
    format_name: str | None,
    multi_token: Any,
    limit: int | None,
    bos: bool,
    batch_size: int,
    overwrite: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Score every token of a prompt for what it does for a target against a foil (Yin & Neubig 2022).

    ITEMS is a table (.csv, .tsv, .jsonl) with the columns prompt, target, foil, and if you like item, phenomenon,
    evidence; or a BLiMP file as it is. A space is put between the prompt and what follows it, unless the prompt
    ends with whitespace or what follows begins with no letter or digit.

    Writes the table of decomp score with, in front, the item, its phenomenon, the foil, log2 P(target) −
    log2 P(foil) in bits (log2_odds), whether the model prefers the target, and how several tokens are scored.
    """
    from decomp.cli.common import contrastive_requests, made_now, open_contrasts, open_model, progress, say, table
    from decomp.corpus.contrast_items import read_items
    from decomp.tables.contrasting import CONTRAST_COLUMNS, Contraster
    from decomp.tables.files import check_table

    read = read_items(items)[:limit]
    requests = contrastive_requests(asked, multi_token)
    check_table(output, format_name, inputs=(items, model), overwrite=overwrite)
    decomposed, tokenizer = open_model(model, asked["dtype"], asked["device"], asked["revision"])
    requests = [(measure, request.with_token_ids(tokenizer)) for measure, request in requests]
    contrasts = open_contrasts(read, decomposed, tokenizer, multi_token, bos, quiet)

    preferred = 0
    each = Contraster(requests, multi_token).rows_by_item(decomposed, tokenizer, contrasts, batch_size)
    # What a measure refuses, it refuses at the first item: before the header is out.
    each = chain(list(islice(each, 1)), each)
    made = made_now(decomposed.about())
    with table(output, format_name, CONTRAST_COLUMNS, made) as write, progress(len(contrasts), quiet, "item") as bar:
        for odds, rows in each:
            preferred += odds > 0
            write(rows)
            bar.update()
    say(f"The model prefers the target in {preferred} of {len(contrasts)} items.", quiet)
