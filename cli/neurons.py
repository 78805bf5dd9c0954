"""`decomp neurons`: knowledge neurons, and whether they matter."""

import click

from decomp.cli.main import DefaultGroup


@click.group("neurons", cls=DefaultGroup, modules={name: f"decomp.cli.neurons_{name}" for name in ("find", "check")})
def command() -> None:
    """Find the neurons that completions, facts or edits of code rest on, and check what they do.

    Knowledge neurons (Dai et al. 2022). `decomp neurons ITEMS MODEL` is `decomp neurons find ITEMS MODEL`.
    """
