"""What `decomp layers`, `neurons` and `edges` do alike."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from decomp.cli.common import open_model, say
from decomp.io.amounts import parse_bytes
from decomp.locate.conventions import Conventions, with_convention
from decomp.models.base import DecomposedModel
from decomp.tables.files import check_table

R = TypeVar("R")


def request_of(family: type[R], asked: Mapping[str, Any]) -> R:
    """Return a request filled with the options of its fields' names."""
    named = {field.name for field in fields(family)}  # type: ignore[arg-type]
    return family(**{**{name: asked[name] for name in asked if name in named}, "memory": parse_bytes(asked["memory"])})


def conventional(asked: Mapping[str, Any], known: Conventions) -> dict[str, Any]:
    """Return the options with those of --convention, which what is given on the command line overrides.

    The running command's parameters become these, so that its tables say what was done.
    """
    context = click.get_current_context()
    given = [name for name in asked if context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)]
    options = with_convention(asked, asked["convention"], known, given)
    context.params.update(options)
    return options


def check_outputs(asked: Mapping[str, Any], *others: Path | None, inputs: tuple[Path | None, ...]) -> None:
    """Refuse a table and other outputs that can't be written, or would destroy something."""
    check_table(
        asked["output"],
        asked["format_name"],
        *others,
        inputs=(*inputs, asked["model"]),
        overwrite=asked["overwrite"],
    )


def open_asked(asked: Mapping[str, Any]) -> tuple[DecomposedModel, Any]:
    """Return the model that was asked for, and its tokenizer."""
    return open_model(asked["model"], asked["dtype"], asked["device"], asked["revision"])


def say_lines(lines: Iterable[str | None], quiet: bool) -> None:
    """Show the messages that there are."""
    for line in lines:
        if line is not None:
            say(line, quiet)
