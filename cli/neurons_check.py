"""`decomp neurons check`: do the found neurons matter, and only where they should?"""

from typing import Any

import click

from decomp.cli import options
from decomp.cli.neurons import items_file, kind_of_neurons


@click.command("check")
@items_file
@options.model
@click.argument("neurons_file", metavar="NEURONS", type=options.FILE)
@click.option(
    "--factor",
    "factors",
    type=float,
    multiple=True,
    default=[0.0, 2.0],
    show_default=True,
    help="What neurons are multiplied by: 0 suppresses, 2 doubles. Several at once.",
)
@kind_of_neurons
@click.option("--draws", type=click.IntRange(1), default=20, show_default=True, help="Of random neurons.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws.")
@click.option("--unrelated", type=options.FILE, help="Items of another file.  [default: the other facts of ITEMS]")
@options.locate_options
def command(**asked: Any) -> None:
    """Suppress or double the NEURONS found for ITEMS, where they predict the target: what becomes of its log2 P?

    NEURONS is a table that `decomp neurons` wrote for the same items and model. Beside the found ones: as many
    random neurons of the same layers, and the found ones on unrelated items. Changes are in bits.
    """
    from decomp.cli.common import made_now, progress, table
    from decomp.cli.locating import check_outputs, open_asked
    from decomp.io.amounts import parse_bytes
    from decomp.locate.limits import check_numbers
    from decomp.locate.neurons.checking import (
        CheckRow,
        check_items_of,
        check_made,
        check_neurons,
        match,
        open_check,
        read_neurons,
    )

    check_numbers("--factor", asked["factors"])
    items, found, others = asked["items_file"], asked["neurons_file"], asked["unrelated"]
    check_outputs(asked, inputs=(items, found, others))
    model, tokenizer = open_asked(asked)
    check_made(found, model, {"bos": asked["bos"], "neurons": asked["neurons"]})
    sets = read_neurons(found, *model.neurons_shape())
    every, unrelated = open_check(model, tokenizer, sets, items, others, asked["bos"])
    check_items_of(found, every, items)
    prompts, options_asked = match(every, sets, found), ("factors", "draws", "seed", "neurons")
    with (
        table(asked["output"], asked["format_name"], CheckRow._fields, made_now(model.about())) as write,
        progress(len(prompts), asked["quiet"], "item") as bar,
    ):
        more = {name: asked[name] for name in options_asked}
        memory = parse_bytes(asked["memory"])
        for rows in check_neurons(model, prompts, sets, unrelated, memory=memory, advance=bar.update, **more):
            write(rows)
