"""What commands do alike: load a model and its windows, show progress."""

import io
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click
import torch
import transformers
from huggingface_hub.utils import logging as hub_logging
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from decomp.cli.options import request_of
from decomp.corpus.articles import Article
from decomp.corpus.contrast_items import Item, tokenise
from decomp.corpus.tokens import beginning_of_sequence
from decomp.corpus.windows import TokenisedWindow, continued, windows_of
from decomp.io.digests import digest
from decomp.io.files import complete_or_absent
from decomp.measures import Measure, Request
from decomp.measures.contrast import Contrast, MultiToken, contrastive_request, default_measures, make_contrast
from decomp.models.base import DecomposedModel
from decomp.models.loading import load_model
from decomp.tables.columns import Writer
from decomp.tables.files import format_of, table_file, table_writer
from decomp.tables.provenance import Made


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
    articles: Sequence[Article], model: DecomposedModel, tokenizer: Any, stride: int | None, bos: bool, **units: Any
) -> list[TokenisedWindow]:
    """The windows that the model has room for; `units` as `windows_of` takes them."""
    positions = model.max_length()
    return windows_of(articles, tokenizer, model.config, positions=positions, stride=stride, bos=bos, **units)


def open_contrasts(
    items: Sequence[Item], model: DecomposedModel, tokenizer: Any, multi_token: MultiToken, bos: bool, quiet: bool
) -> list[Contrast]:
    """Tokenised; those that `first` can't score are left out, and counted for the person. ValueError if all are."""
    bos_id = beginning_of_sequence(tokenizer, model.config) if bos else None
    tokenised = [tokenise(item, tokenizer, model.max_length(), bos_id) for item in items]
    contrasts = [make_contrast(item, multi_token, model.device) for item in tokenised]
    if omitted := [item.place for item, contrast in zip(items, contrasts, strict=True) if contrast is None]:
        message = (
            f"{len(omitted)} of {len(items)} items left out, the first is {omitted[0]}: as tokens, "
            "the target begins with the whole foil or the foil with the target; --multi-token sum scores them"
        )
        if len(omitted) == len(items):
            raise ValueError(message)
        say(message, quiet)
    return [contrast for contrast in contrasts if contrast is not None]


def contrastive_requests(asked: dict[str, Any], multi_token: MultiToken) -> list[tuple[Measure, Request]]:
    """Each measure and what it is asked with, from the values of `options.contrast_options`."""
    measures, request = request_of({**asked, "measures": asked["measures"] or default_measures(multi_token)})
    return [(measure, contrastive_request(measure, request, multi_token)) for measure in measures]


def let_write(
    windows: list[TokenisedWindow], model: DecomposedModel, tokenizer: Any, asked: Mapping[str, Any], quiet: bool
) -> TokenisedWindow:
    """A text and its continuation by the model, of which the continuation is predicted; `asked` as
    `options.file_or_text` has it.

    ValueError for a text without tokens, or longer than the model's positions.
    """
    if len(windows) != 1:
        raise ValueError(
            f"the text is longer than the model's {model.max_length()} positions: shorten it"
            if windows
            else "the text has no tokens: the model needs some to continue"
        )
    (prompt,) = windows
    new_ids = model.write(
        prompt.ids.to(model.device),
        asked["max_new_tokens"],
        sample=asked["sample"],
        temperature=asked["temperature"],
        seed=asked["seed"],
    ).cpu()
    say(f"the model writes {tokenizer.decode(new_ids)!r}", quiet)
    return continued(prompt, new_ids, tokenizer)


def estimate(mean: float, low: float, high: float) -> str:
    """A mean and its interval."""
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def printable(text: str) -> str:
    """Text of a file for a terminal, without what would control it."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def readable(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """The cells of a small table below one another, the first column to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        yield "  ".join(
            [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        ).rstrip()


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


@contextmanager
def table(
    output: Path | None, format_name: str | None, columns: Sequence[str], made: Made | None = None
) -> Iterator[Writer]:
    """Give a writer of rows to the destination, in the format asked for or that its suffix says; `made` is what the
    file says of how it was made."""
    name = format_of(output, format_name)
    if output is not None:
        with table_file(output, name, columns, made) as write:
            yield write
    else:
        with destination(None) as file, table_writer(file, name, columns, made) as write:
            yield write


NOT_ASKED = {
    *("input_file", "model", "revision", "output", "output_dir", "format_name", "run_folder", "shard", "engine"),
    *("num_workers", "ray_address", "overwrite", "quiet"),
}
"""Parameters that change no result, or that the account of how it was made has in a better form."""


def made_now(model: Mapping[str, str]) -> dict[str, Any]:
    """Return how the results of the running command are made, by a model's `about()`: what their bytes depend on."""
    context = click.get_current_context()
    options = {name: plain(value) for name, value in context.params.items() if name not in NOT_ASKED}
    if "device" in options:
        options["device"] = torch.device(options["device"]).type
    return {
        "command": command_name(context),
        "model": dict(model),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "options": options,
    }


def command_name(context: click.Context) -> str:
    """Return a command's name with the groups that it is in, without that of the program."""
    names = [context.info_name or ""]
    while context.parent is not None and context.parent.parent is not None:
        if not isinstance(context.parent.command, click.Group):
            break
        context = context.parent
        names.insert(0, context.info_name or "")
    return " ".join(names)


def plain(value: Any) -> Any:
    """Return an option's value as JSON has it; a file by its name and the digest of its contents."""
    if isinstance(value, Path):
        return [value.name, digest([value.read_bytes()]) if value.is_file() else None]
    return [plain(each) for each in value] if isinstance(value, tuple) else value
