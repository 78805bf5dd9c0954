"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


input_file = click.argument("input_file", type=click.Path(path_type=Path))
model = click.argument("model")

model_options = together(
    click.option("--device", default="cpu", show_default=True, help="Torch device: cpu, cuda, cuda:1, mps."),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float64", "bfloat16", "float16"]),
        default="float32",
        show_default=True,
        help="Precision of the model and of all that is computed.",
    ),
    click.option(
        "--activation-rule",
        type=click.Choice(["tangent", "secant"]),
        default="tangent",
        show_default=True,
        help="How activations are linearised; the same for ReLU.",
    ),
    click.option("--revision", help="Branch, tag or commit of a hub model."),
)

window_options = together(
    click.option(
        "--stride", type=int, help="Tokens from one window's start to the next one's.  [default: half the positions]"
    ),
    click.option("--bos/--no-bos", default=True, help="Begin windows with the beginning-of-sequence token (default)."),
    click.option(
        "--batch-size", type=click.IntRange(1), default=1, show_default=True, help="Windows computed together."
    ),
)

memory = click.option(
    "--memory", default="1GiB", show_default=True, help="Memory for buffers, beside the model: 800MiB, 4GiB."
)

overwrite = click.option("--overwrite", is_flag=True, help="Replace existing output.")
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress bar, no messages but errors.")
