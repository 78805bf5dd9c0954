"""`decomp neurons check`: do the found neurons matter, and only where they should?"""

from typing import Any

import click

from decomp.cli import kinds, layout, options
from decomp.cli.neurons import items_file, kind_of_neurons


@layout.command(
    "check",
    """
    decomp neurons find demo-facts.jsonl demo-opt --steps 4 -o neurons.tsv
    decomp neurons check demo-facts.jsonl demo-opt neurons.tsv --draws 2
    """,
)
@items_file
@options.model
@click.argument("neurons_file", metavar="NEURONS", type=kinds.INPUT)
@layout.section(
    "What is done to neurons",
    options.option(
        "--factor",
        "factors",
        type=float,
        multiple=True,
        default=[0.0, 2.0],
        help="Factor on the neurons: 0 suppresses, 2 doubles. Several at once.",
    ),
    kind_of_neurons,
    options.whole_number("--draws", "Draws of random neurons.", 20),
    options.seed_of("the draws"),
    click.option("--unrelated", type=kinds.INPUT, help="File of unrelated items.  [default: the other facts of ITEMS]"),
)
@options.locate_options()
def command(**values: Any) -> None:
    """Suppress or double the NEURONS that were found for ITEMS.

    The rows say how log2 P of the target changes, in bits, when neurons change where they predict it. NEURONS is a
    table that `decomp neurons` wrote for the same items and model. For comparison as many random neurons of the same
    layers are changed, and the found ones on unrelated items.
    """
    from decomp.cli.locating import check_outputs, job_of, open_named_model, with_table
    from decomp.cli.running import deliver
    from decomp.io.amounts import parse_bytes
    from decomp.locate.forms import item_records
    from decomp.locate.limits import check_numbers

    values = with_table(values, "neurons_file")
    check_outputs(values)
    check_numbers("--factor", values["factors"])
    for path in filter(None, (values["items_file"], values["unrelated"])):
        item_records(path, fields=values["fields"])
    from decomp.locate.neurons.checking import check_work, open_check  # imports torch
    from decomp.locate.neurons.items import tokens_of

    found = {name: values[name] for name in ("unrelated", "bos", "neurons", "fields")}
    how = {name: values[name] for name in ("factors", "draws", "seed", "neurons")}
    memory = parse_bytes(values["memory"])
    model, tokenizer = open_named_model(values)
    check = open_check(model, tokenizer, values["neurons_file"], values["items_file"], **found)
    work = check_work(check, memory=memory, **how)
    deliver(job_of(work, model, values, tokens_of(item for item, _ in work.items)), values)
