"""`decomp contrast`: why the target and not the foil."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decomp.cli import kinds, layout, options
from decomp.models.sources import check_name

if TYPE_CHECKING:
    from decomp.corpus.contrast_items import Item
    from decomp.settings import ContrastSettings

NO_SETTINGS = {
    *("model", "fields", "prompt", "target", "foil"),
    *("output", "format_name", "batch_size", "overwrite", "quiet", "device"),
    *options.RUN_OPTIONS,
}
"""Options that are not settings of `contrast_settings`."""


@layout.command(
    "contrast",
    """
    decomp contrast --prompt "The keys to the cabinet" --target were --foil was demo-opt
    decomp contrast demo-contrast.csv demo-opt --measure delta_lp --limit 3 -o contrast.tsv
    """,
)
@click.argument("items", type=kinds.INPUT_OR_MODEL, required=False, metavar="[ITEMS]")
@click.argument("model", type=kinds.MODEL, required=False, metavar="MODEL")
@layout.section(
    "One item instead of a file",
    click.option("--prompt", help="Score this prompt, with --target and --foil."),
    click.option("--target", help="Text that should follow --prompt."),
    click.option("--foil", help="Text that should not."),
)
@options.results
@options.sources_section
@options.contrast_options
@options.model_options
@options.run_options
@options.manners
def command(items: Path | None, limit: int | None, **values: Any) -> None:
    """Score every token of a prompt for a target against a foil.

    Scores say what each token does for the one and against the other (Yin & Neubig 2022).

    ITEMS is a table (.csv, .tsv, .jsonl, .parquet, .arrow) with the columns prompt, target, foil, and if you like
    item, phenomenon, evidence; or a BLiMP file as it is. A single item is --prompt, --target and --foil. A space is
    put between the prompt and what follows it, unless the prompt ends with whitespace or what follows begins with
    no letter or digit.

    Writes the table of decomp score with, in front, the item, its phenomenon, the foil, log2 P(target) −
    log2 P(foil) in bits (log2_odds), whether the model prefers the target, and how several tokens are scored.
    With --run, whatever stops the command, the same command goes on where it stopped.
    """
    items, name = items_and_model(items, values["model"], *(values[text] for text in ("prompt", "target", "foil")))
    from decomp.cli.running import check_output_options, device_here
    from decomp.corpus.contrast_items import read_items
    from decomp.settings import contrast_settings

    check_output_options(values, (items, name))
    settings = {name: values[name] for name in values if name not in NO_SETTINGS}
    checked = contrast_settings(device=device_here(values), **settings)
    if items is not None:
        read_items(items, values["fields"])
    from decomp.api import items_of  # imports torch

    read = items_of(items or str(values["prompt"]), values["target"], values["foil"], limit, values["fields"])
    score(read, name, checked, values)


def score(items: Sequence["Item"], name: str, checked: "ContrastSettings", values: Mapping[str, Any]) -> None:
    """Score all items under the model of a name, and write the table."""
    from decomp.cli.common import made_now, say, silence_libraries
    from decomp.cli.running import Job, deliver
    from decomp.jobs import open_contrasting  # imports torch
    from decomp.tables.contrasting import items_preferring_target

    silence_libraries()
    opened = open_contrasting(items, checked, name)
    made = {**made_now(opened.model.about(), opened.model.default_baseline), **opened.contents()}
    job, preferred = Job(opened.work(values["batch_size"]), opened.model, name, made), set[int]()

    def say_preferred() -> None:
        say(f"The model prefers the target in {len(preferred)} of {len(opened.contrasts)} items.", values["quiet"])

    deliver(job, values, lambda rows: preferred.update(items_preferring_target(rows)), say_preferred)


def items_and_model(
    items: Path | None, model: str | None, prompt: str | None, target: str | None, foil: str | None
) -> tuple[Path | None, str]:
    """Return the file of items, None where the prompt is given as text, and the model's name.

    UsageError where both are given, or neither, or only a part of prompt, target and foil.
    """
    given = [text is not None for text in (prompt, target, foil)]
    if any(given) and not all(given):
        raise click.UsageError("--prompt, --target and --foil go together: give all three")
    if all(given) and items is not None and model is None:
        check_name(items.as_posix())
        return None, items.as_posix()
    if all(given) and items is not None:
        raise click.UsageError("give either ITEMS or --prompt, --target and --foil, not both")
    if items is None or model is None:
        raise click.UsageError("missing argument: expected ITEMS MODEL, or --prompt … --target … --foil … MODEL")
    kinds.check_there(items)
    return items, model
