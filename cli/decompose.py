"""`decomp decompose`: corpus in, decomposition files out."""

from pathlib import Path
from typing import Any

import click

from decomp.cli import layout, options


@layout.command(
    "decompose",
    """
    echo "The keys to the cabinet are on the table." > keys.txt
    decomp decompose keys.txt demo-opt 10 --output-dir stored
    decomp deltalp keys_demo-opt demo-opt --output-dir stored -o delta_lp.tsv
    """,
)
@options.input_file
@options.model
@click.argument("decomposition_length", type=click.IntRange(1))
@layout.section(
    "Output",
    options.option(
        "--output-dir",
        type=options.FILE,
        default=Path("output"),
        help="Folder to write into.",
    ),
    options.choice(
        "--format",
        ["safetensors", "pt"],
        "safetensors",
        "Format of the files; pt has the names and shapes of the original research code.",
        "format_name",
    ),
    options.choice(
        "--store-dtype",
        ["float64", "float32", "bfloat16", "float16"],
        None,
        "Precision of the files.  [default: that of --dtype]",
    ),
)
@options.input_options
@options.sources_section
@options.model_options
@options.window_options
@layout.section("Computation", options.memory, options.shard, options.plan)
@options.overwrite
@options.quiet
def command(**values: Any) -> None:
    """Decompose every window of INPUT_FILE and store the results.

    DECOMPOSITION_LENGTH is the number of most recent source tokens kept per target (the target included). Writes one
    file per window, {corpus}_{model}_{n}, and once the unembedding, which ΔLP needs. After any interruption the same
    command goes on where it stopped.
    """
    from decomp.cli.storing import open_job, show_plan, store

    (show_plan if values["plan"] else store)(open_job(values), values)
