"""What commands do alike: load a model and its windows, show progress."""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click
from huggingface_hub.utils import logging as hub_logging
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from decomp.corpus import TokenisedWindow, read_articles, windows_of
from decomp.models.base import DecomposedModel
from decomp.models.loading import load_model
from decomp.storage import complete_or_absent


def say(message: str, quiet: bool) -> None:
    """A message for a person, on stderr."""
    if not quiet:
        click.echo(message, err=True)


def open_model(name: str, dtype: str, device: str, revision: str | None) -> tuple[DecomposedModel, Any]:
    """The model and its tokenizer, without what transformers and the hub have to say meanwhile."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity(logging.CRITICAL)
    return load_model(name, dtype=dtype, device=device, revision=revision)


def open_windows(
    path: Path, model: DecomposedModel, tokenizer: Any, stride: int | None, bos: bool
) -> list[TokenisedWindow]:
    return windows_of(
        read_articles(path), tokenizer, model.config, positions=model.max_length(), stride=stride, bos=bos
    )


def batches(windows: list[TokenisedWindow], size: int) -> Iterator[list[TokenisedWindow]]:
    return (windows[i : i + size] for i in range(0, len(windows), size))


@contextmanager
def progress(total: int, quiet: bool, unit: str = "token") -> Iterator[Any]:
    """A bar on a terminal's stderr, for what takes longer than a second."""
    with tqdm(total=total, unit=unit, delay=1, disable=True if quiet else None) as bar:
        yield bar


@contextmanager
def destination(output: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is complete or absent."""
    if output is None:
        assert isinstance(sys.stdout, io.TextIOWrapper)
        sys.stdout.reconfigure(encoding="utf-8", newline="")
        yield sys.stdout
    else:
        with complete_or_absent(output) as beside, beside.open("w", encoding="utf-8", newline="") as file:
            yield file
