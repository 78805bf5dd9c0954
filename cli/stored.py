"""The work of `decomp deltalp`: it opens stored decompositions in order, and writes their ΔLP as text or as a table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decomp.cli.common import destination, reduction_of, table
from decomp.cli.progress import amount, progress, say_wrote
from decomp.io.files import check_outputs
from decomp.tables.files import check_table
from decomp.tables.reduction import Reduction

if TYPE_CHECKING:
    from decomp.runs.stored import StoredWindow

TEXT = (".txt", ".deltalp", "")
"""Suffixes of the original text format."""


def is_text(values: Mapping[str, Any]) -> bool:
    """Return whether the original text format is asked for, by name or by the suffix of the output."""
    name, output = values["format_name"], values["output"]
    return name == "text" or (name is None and (output is None or output.suffix in TEXT))


def check_reduction(reduction: Reduction, values: Mapping[str, Any]) -> None:
    """Raise ValueError for a choice of rows of the text format, which always has all."""
    if is_text(values) and reduction != Reduction():
        raise ValueError("the text format has all rows: give --format tsv (or another table) with --top and the others")


def write_delta_lp(values: Mapping[str, Any]) -> None:
    """Write ΔLP of all windows of an identifier; options are checked before anything is opened."""
    reduction = reduction_of(values)
    check_reduction(reduction, values)
    check_output(values, [values["model"]])
    from decomp.runs.find_stored import find_stored

    paths = find_stored(values["identifier"], values["output_dir"])
    check_output(values, [*paths.values(), values["model"]])
    from decomp.models.architecture import model_label  # imports torch
    from decomp.models.loading import tokens_by
    from decomp.runs.stored import open_stored

    label, tokens_of = model_label(values["model"]), tokens_by(values["model"])
    stored = (open_stored(name, path, label, number, tokens_of) for number, (name, path) in enumerate(paths.items()))
    # What can't be opened is refused before a file is begun.
    shown = with_progress(chain([next(stored)], stored), len(paths), values["quiet"])
    if is_text(values):
        write_text(shown, values)
    else:
        write_table(shown, reduction, values)


def with_progress(stored: Iterator["StoredWindow"], count: int, quiet: bool) -> Iterator["StoredWindow"]:
    """Yield the windows, and show the progress."""
    with progress("window", count, count, quiet) as shown:
        for each in stored:
            yield each
            shown.advance(tokens=len(each.tokens) - 1)


def check_output(values: Mapping[str, Any], inputs: Sequence[Path | str]) -> None:
    """Raise ValueError for an output that can't be written, or would destroy something."""
    output, overwrite = values["output"], values["overwrite"]
    if is_text(values):
        check_outputs([output], inputs, overwrite)
    else:
        check_table(output, values["format_name"], inputs=inputs, overwrite=overwrite)


def write_text(stored: Iterator["StoredWindow"], values: Mapping[str, Any]) -> None:
    """Write ΔLP in the text format of the original research code."""
    from decomp.tables.original_text import lines

    count, output = 0, values["output"]
    with destination(output) as file:
        for each in stored:
            if each.has_groups:
                raise ValueError(
                    f"{each.name} has groups of tokens for sources, the text format has tokens: give --format tsv"
                )
            written = [f"{line}\n" for line in lines(each.name, each.delta_lp(), each.tokens)]
            file.writelines(written)
            count += len(written)
    if output is not None:
        say_wrote(output, amount(count, "line"))


def write_table(stored: Iterator["StoredWindow"], reduction: Reduction, values: Mapping[str, Any]) -> None:
    """Write ΔLP as the long table, with the account of how the first window's decomposition was made."""

    first = next(stored)
    reduced = {name: value for name, value in asdict(reduction).items() if value}
    made = first.made()
    if made is not None and reduced:
        made = {**made, "options": {**made["options"], **reduced}}
    with table(values["output"], values["format_name"], reduction.columns(first.columns), made) as write:
        for each in chain([first], stored):
            write(reduction(each.block()))
