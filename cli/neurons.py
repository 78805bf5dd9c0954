"""`decomp neurons`: knowledge neurons, and whether they matter."""

import click

from decomp.cli import options
from decomp.cli.main import DefaultGroup


@click.group("neurons", cls=DefaultGroup, modules={name: f"decomp.cli.neurons_{name}" for name in ("find", "check")})
def command() -> None:
    """Find the neurons that completions, facts or edits of code rest on, and check what they do.

    Knowledge neurons (Dai et al. 2022). `decomp neurons ITEMS MODEL` is `decomp neurons find ITEMS MODEL`.
    """


items_file = click.argument("items_file", metavar="ITEMS", type=options.FILE)
kind_of_neurons = click.option(
    "--neurons",
    type=click.Choice(["activation", "pre-activation"]),
    default="activation",
    show_default=True,
    help="What is changed: what an MLP's last map is given, or what its activation is.",
)
