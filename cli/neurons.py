"""`decomp neurons`: knowledge neurons, and whether they matter."""

import click
import cloup

from decomp.cli import kinds, options
from decomp.cli.main import DefaultGroup


@cloup.group(
    "neurons",
    cls=DefaultGroup,
    modules={name: f"decomp.cli.neurons_{name}" for name in ("find", "check")},
    examples="""
    decomp neurons find demo-facts.jsonl demo-opt --steps 4 -o neurons.tsv
    decomp neurons check demo-facts.jsonl demo-opt neurons.tsv --draws 2
    """,
)
def command() -> None:
    """Find the neurons that completions rest on, and check them.

    Knowledge neurons (Dai et al. 2022) of completions, facts or edits of code. `decomp neurons ITEMS MODEL` is
    `decomp neurons find ITEMS MODEL`.
    """


items_file = click.argument("items_file", metavar="ITEMS", type=kinds.INPUT)
kind_of_neurons = options.choice(
    "--neurons",
    ["activation", "pre-activation"],
    "activation",
    "Neurons after the activation (inputs of an MLP's last map), or before it (inputs of the activation).",
)
