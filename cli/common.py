"""Shared parts of commands: loading a model, messages, writing a table, the account of how it was made."""

import io
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from decomp.cli.progress import announced
from decomp.corpus.tokenizer import Tokenizer
from decomp.io.files import complete_or_absent
from decomp.tables.columns import Writer
from decomp.tables.files import format_of, table_file, table_writer
from decomp.tables.provenance import Made
from decomp.tables.reduction import Reduction

if TYPE_CHECKING:
    from decomp.models.base import DecomposedModel

T = TypeVar("T")


def say(message: str, quiet: bool) -> None:
    """Print a message for a person on stderr, unless `quiet`."""
    if not quiet:
        click.echo(message, err=True)


def silence_libraries() -> None:
    """Silence messages and progress bars of transformers and the hub that a person at a terminal does not need."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity(logging.CRITICAL)


def open_model(name: str, dtype: str, device: str, revision: str | None) -> "tuple[DecomposedModel, Tokenizer]":
    """Return a model and its tokenizer, loaded without messages of the libraries."""
    from decomp.models.loading import load_model

    silence_libraries()
    return load_model(name, dtype=dtype, device=device, revision=revision)


def estimate(mean: float, low: float, high: float) -> str:
    """Return a mean and its interval as text."""
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def readable(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a small table, its columns aligned, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        yield "  ".join(
            [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        ).rstrip()


@contextmanager
def destination(output: Path | None) -> Iterator[TextIO]:
    """Open a file that is complete or absent, or standard output. ValueError where standard output is closed."""
    if output is None:
        if sys.stdout is None:
            raise ValueError("can't write to standard output: it is closed; give --output")
        assert isinstance(sys.stdout, io.TextIOWrapper)
        sys.stdout.reconfigure(encoding="utf-8", newline="")
        yield sys.stdout
    else:
        with complete_or_absent(output) as beside, beside.open("w", encoding="utf-8", newline="") as file:
            yield file


@contextmanager
def table(
    output: Path | None, format_name: str | None, columns: Sequence[str], made: Made | None = None
) -> Iterator[Writer]:
    """Open a table, in a file or on standard output, in the given format or that of the suffix.

    `made` is the account of how the table was made.
    """
    name = format_of(output, format_name)
    if output is not None:
        with announced(output, table_file(output, name, columns, made)) as write:
            yield write
    else:
        with destination(None) as file, table_writer(file, name, columns, made) as write:
            yield write


def reduction_of(values: Mapping[str, Any]) -> Reduction:
    """Return the choice of rows that a command's options describe. ValueError for numbers that keep nothing."""
    return Reduction(**{field.name: values[field.name] for field in fields(Reduction)})


NOT_RECORDED = {
    *("input_file", "model", "revision", "output", "output_dir", "format_name", "run_folder", "shard", "engine"),
    *("num_workers", "ray_address", "overwrite", "quiet", "plan", "picture", "masked", "subgraph"),
}
"""Parameters that change no result, or that the account of how a table was made holds in a better form."""


def made_now(model: Mapping[str, str], baseline: Callable[[bool], str] | None = None) -> dict[str, Any]:
    """Return the account of how the running command's results are made, with a model's `about()`.

    `baseline` resolves `--baseline auto`, given whether `--positions` is.
    """
    from decomp.jobs import account

    context = click.get_current_context()
    options = {name: value for name, value in context.params.items() if name not in NOT_RECORDED}
    if "device" in options:
        options["device"] = options["device"].partition(":")[0]
    if baseline is not None and options.get("baseline") == "auto":
        options["baseline"] = baseline(options["positions"])
    return account(command_name(context), model, options)


def command_name(context: click.Context) -> str:
    """Return a command's name with those of its groups, without that of the program."""
    names = [context.info_name or ""]
    while context.parent is not None and context.parent.parent is not None:
        if not isinstance(context.parent.command, click.Group):
            break
        context = context.parent
        names.insert(0, context.info_name or "")
    return " ".join(names)


def command_line(context: click.Context, without: Iterable[str], **other: str) -> list[str]:
    """Return the words of the running command, without some of its options, and with `other` ones added."""
    arguments, given = list[str](), list[str]()
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not click.core.ParameterSource.COMMANDLINE or parameter.name in without:
            continue
        value = context.params[str(parameter.name)]
        if isinstance(parameter, click.Argument):
            arguments.append(str(value))
        elif isinstance(value, bool):
            given.append(parameter.opts[0] if value else (*parameter.secondary_opts, parameter.opts[0])[0])
        else:
            for one in value if isinstance(value, tuple | list) else [value]:
                given.append(f"{max(parameter.opts, key=len)}={one}")
    more = [f"--{name}={value}" for name, value in other.items()]
    return ["decomp", *command_name(context).split(), *arguments, *given, *more]


def first_computed(items: Iterable[T]) -> Iterator[T]:
    """Return the items with the first one already computed, so that a measure's refusal comes before any output."""
    items = iter(items)
    return chain(list(islice(items, 1)), items)
