"""`decomp neurons check`: do the found neurons matter, and only where they should?"""

from pathlib import Path

import click

from decomp.cli import options


@click.command("check")
@click.argument("items_file", metavar="ITEMS", type=click.Path(path_type=Path))
@options.model
@click.argument("neurons_file", metavar="NEURONS", type=click.Path(path_type=Path))
@options.output
@options.table_format
@click.option(
    "--factor",
    "factors",
    type=float,
    multiple=True,
    default=[0.0, 2.0],
    show_default=True,
    help="What neurons are multiplied by: 0 suppresses, 2 doubles. Several at once.",
)
@click.option("--draws", type=click.IntRange(1), default=20, show_default=True, help="Of random neurons.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws.")
@click.option(
    "--unrelated", type=click.Path(path_type=Path), help="Items of another file.  [default: the other facts of ITEMS]"
)
@options.memory
@options.placement_options
@options.prompt_bos
@options.overwrite
@options.quiet
def command(
    items_file: Path,
    model: str,
    neurons_file: Path,
    output: Path | None,
    format_name: str | None,
    factors: tuple[float, ...],
    draws: int,
    seed: int,
    unrelated: Path | None,
    memory: str,
    device: str,
    dtype: str,
    revision: str | None,
    bos: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Suppress or double the NEURONS found for ITEMS, where they predict the target: what becomes of its log2 P?

    NEURONS is a table that `decomp neurons` wrote for the same items and model. Beside the found ones: as many
    random neurons of the same layers, and the found ones on unrelated items. Changes are in bits.
    """
    from decomp.cli.common import open_model, progress, table
    from decomp.corpus.tokens import beginning_of_sequence
    from decomp.io.amounts import parse_bytes
    from decomp.locate.neurons.checking import CheckRow, check_items, check_unrelated, match, read_neurons
    from decomp.locate.neurons.items import read_asked
    from decomp.tables.files import check_table

    budget = parse_bytes(memory)
    inputs = (items_file, neurons_file, unrelated, model)
    check_table(output, format_name, inputs=inputs, overwrite=overwrite)
    decomposed, tokenizer = open_model(model, dtype, device, revision)
    bos_id = beginning_of_sequence(tokenizer, decomposed.config) if bos else None
    sets = read_neurons(neurons_file, *decomposed.neurons_shape())
    levels = tuple(dict.fromkeys(level for _, level in sets if level)) or ("token",)
    positions = decomposed.max_length()
    asked = match(read_asked(items_file, tokenizer, bos_id, positions, levels, contrast=False), sets, neurons_file)
    others = asked
    if unrelated is not None:
        others = read_asked(unrelated, tokenizer, bos_id, positions, levels[:1], contrast=False)
    with table(output, format_name, CheckRow._fields) as write, progress(len(asked), quiet, "item") as bar:
        for rows in check_items(decomposed, asked, sets, factors, draws, seed, budget):
            write(rows)
            bar.update()
        write(check_unrelated(decomposed, others, sets, factors, unrelated is None, budget))
