"""`decomp deltalp`: stored decompositions in, ΔLP out."""

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decomp.cli import options

if TYPE_CHECKING:
    from decomp.runs.stored import Tokens

TEXT = (".txt", ".deltalp", "")
"""Suffixes of the original text format."""


@click.command("deltalp")
@click.argument("identifier")
@options.model
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path("output"),
    show_default=True,
    help="Where the stored files are.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.  [default: standard output]")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["text", "tsv", "csv", "jsonl", "parquet"]),
    help="text: the original research code's; the others: the long table.  "
    "[default: what the suffix of --output says, else text]",
)
@options.reduction_options
@options.overwrite
@options.quiet
def command(
    identifier: str,
    model: str,
    output_dir: Path,
    output: Path | None,
    format_name: str | None,
    overwrite: bool,
    quiet: bool,
    **kept: Any,
) -> None:
    """ΔLP of every stored source, from the files that `decomp decompose` wrote.

    IDENTIFIER is {corpus}_{model}_{n}, or {corpus}_{model} for all windows of a run, which must be complete. MODEL
    gives the tokenizer, for files of the original research code without token strings.
    """
    from decomp.cli.common import destination, progress, table
    from decomp.io.files import check_outputs
    from decomp.models.base import model_label
    from decomp.runs.stored import DELTA_LP_COLUMNS, find_stored, open_stored
    from decomp.tables.files import check_table
    from decomp.tables.original_text import lines
    from decomp.tables.reduction import Reduction

    reduction = Reduction(**kept)
    as_text = format_name == "text" or (format_name is None and (output is None or output.suffix in TEXT))
    if as_text and reduction != Reduction():
        raise ValueError("the text format has all rows: give --format tsv (or another table) with --top and the others")
    paths = find_stored(identifier, output_dir)
    if as_text:
        check_outputs([output], [*paths.values(), model], overwrite)
    else:
        check_table(output, format_name, inputs=[*paths.values(), model], overwrite=overwrite)
    label, tokens_of = model_label(model), tokenizer_of(model)
    stored = (open_stored(name, path, label, number, tokens_of) for number, (name, path) in enumerate(paths.items()))
    first = next(stored)
    with progress(len(paths), quiet, "window") as bar:
        if as_text:
            with destination(output) as file:
                for each in chain([first], stored):
                    file.writelines(f"{line}\n" for line in lines(each.name, each.delta_lp(), each.tokens))
                    bar.update()
        else:
            columns, made = reduction.columns(DELTA_LP_COLUMNS), first.made()
            asked = {name: value for name, value in kept.items() if value}
            if made is not None and asked:
                made = {**made, "options": {**made["options"], **asked}}
            with table(output, format_name, columns, made) as write:
                for each in chain([first], stored):
                    write(reduction(each.block()))
                    bar.update()


def tokenizer_of(model: str) -> "Tokens":
    """Return what gives the strings of token ids, by the model's tokenizer, which is loaded when it is asked."""
    from functools import cache

    from decomp.models.loading import load_config, load_tokenizer

    @cache
    def opened() -> tuple[Any, set[int | None]]:
        tokenizer = load_tokenizer(model)
        return tokenizer, {tokenizer.bos_token_id, getattr(load_config(model), "bos_token_id", None)}

    def tokens_of(ids: Any) -> tuple[bool, tuple[str, ...]]:
        tokenizer, beginnings = opened()
        if int(ids.max()) >= len(tokenizer):
            raise ValueError(f"token {int(ids.max())} is unknown to {model}, which has {len(tokenizer)}: another model")
        return int(ids[0]) in beginnings, tuple(tokenizer.convert_ids_to_tokens(ids.tolist()))

    return tokens_of
