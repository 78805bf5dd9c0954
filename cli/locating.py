"""Shared parts of `decomp layers`, `neurons` and `edges`: opening models, checking outputs, writing beside a table."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from decomp.cli.common import destination, made_now, open_model, say
from decomp.cli.running import Job, check_output_options, device_here
from decomp.corpus.tokenizer import Tokenizer
from decomp.io.amounts import parse_bytes
from decomp.locate.edges.request import Behaviour, EdgeRequest
from decomp.locate.layers.request import LayerRequest
from decomp.locate.neurons.request import NeuronRequest
from decomp.runs.tables import table_file_of
from decomp.tables.work import Work

if TYPE_CHECKING:
    from torch import Tensor

    from decomp.models.base import DecomposedModel

T = TypeVar("T")
R = TypeVar("R", LayerRequest, NeuronRequest, EdgeRequest, Behaviour)


def request_of(family: type[R], values: Mapping[str, Any]) -> R:
    """Return a request whose fields are the options of the same names. ValueError for values that it refuses."""
    named = {field.name for field in fields(family)}
    request = family(**{**{n: values[n] for n in values if n in named}, "memory": parse_bytes(values["memory"])})
    request.check()
    return request


INPUTS = ("facts_file", "items_file", "neurons_file", "unrelated", "prompts_file", "edges_file", "model")
OUTPUTS = ("masked", "subgraph", "picture")
"""Parameters that name the files written beside the table, which is `output`."""


def check_outputs(values: Mapping[str, Any], check_picture: Callable[[Path], None] | None = None) -> None:
    """Raise ValueError for a table, picture or other output that can't be written, or would destroy something."""
    if check_picture is not None and values["picture"] is not None:
        check_picture(values["picture"])
    inputs, others = ([values.get(name) for name in names] for names in (INPUTS, OUTPUTS))
    check_output_options(values, inputs, *others)


def job_of(work: Work[T], model: "DecomposedModel", values: Mapping[str, Any], ids: "Iterable[Tensor]") -> Job[T]:
    """Return the job of a command: its work, and the account of how its table is made; `ids` are its items' tokens."""
    from decomp.jobs import tokens_digest  # imports torch

    return Job(work, model, values["model"], {**made_now(model.about()), "tokens": tokens_digest(ids)})


@contextmanager
def lines_file(path: Path | None, lines: Iterable[Mapping[str, Any]]) -> Iterator[None]:
    """Write JSON Lines to a file, if `path` is one, that is complete once the block of the `with` has ended."""
    if path is None:
        yield
        return
    with destination(path) as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        yield


def with_table(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the options with the run's folder that one of them names replaced by the file of the run's table.

    The running command's parameters are changed alike, so that its tables record the file.
    """
    options = {**values, name: table_file_of(values[name])}
    click.get_current_context().params.update(options)
    return options


def open_named_model(values: Mapping[str, Any]) -> "tuple[DecomposedModel, Tokenizer]":
    """Return the model that the options name, and its tokenizer."""
    return open_model(values["model"], values["dtype"], device_here(values), values["revision"])


def say_lines(lines: Iterable[str | None], quiet: bool) -> None:
    """Print those of the messages that are not None."""
    for line in lines:
        if line is not None:
            say(line, quiet)
