"""`decomp deltalp`: stored decompositions in, ΔLP out."""

from pathlib import Path
from typing import Any

import click

from decomp.cli import kinds, layout, options


@layout.command(
    "deltalp",
    """
    echo "The keys to the cabinet are on the table." > keys.txt
    decomp decompose keys.txt demo-opt 10 --output-dir stored
    decomp deltalp keys_demo-opt_0 demo-opt --output-dir stored
    decomp deltalp keys_demo-opt demo-opt --output-dir stored --top 5 -o top.tsv
    """,
)
@click.argument("identifier")
@click.argument("model", type=kinds.LABEL)
@layout.section(
    "Input and output",
    options.option(
        "--output-dir",
        type=options.FILE,
        default=Path("output"),
        help="Folder of the stored files.",
    ),
    click.option("-o", "--output", type=options.FILE, help="File to write.  [default: standard output]"),
    options.choice(
        "--format",
        ["text", "tsv", "csv", "jsonl", "parquet"],
        None,
        "Format of the output: text is the original research code's, the others are long tables.  "
        "[default: that of --output's suffix, else text]",
        "format_name",
    ),
)
@options.reduction_options
@options.overwrite
@options.quiet
def command(**values: Any) -> None:
    """Compute ΔLP from the files that decomp decompose wrote.

    Every stored source is scored. IDENTIFIER is {corpus}_{model}_{n}, or {corpus}_{model} for all windows of a run,
    which must be complete. MODEL gives the tokenizer, for files of the original research code without token strings.
    """
    from decomp.cli.stored import write_delta_lp

    write_delta_lp(values)
