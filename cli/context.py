"""`decomp context`: which segments of its context an answer rests on."""

from pathlib import Path
from typing import Any

import click

from decomp.cli import kinds, layout, options

NO_SETTINGS = {"model", "output", "format_name", "overwrite", "quiet", "device", *options.RUN_OPTIONS}
"""Options that are not settings of `context_settings`."""


@layout.command(
    "context",
    """
    decomp context demo-vases.jsonl demo-opt --limit 2 --refine 2
    decomp context demo-vases.jsonl demo-opt --limit 2 -o context.tsv
    """,
)
@click.argument("items", type=kinds.INPUT)
@options.model
@options.table_results
@options.context_options
@options.model_options
@options.run_options
@options.manners
def command(items: Path, limit: int | None, **values: Any) -> None:
    """Score every segment of a context for the answer that follows it.

    ITEMS is JSONL: objects with "segments" (a list of {"name", "text"}), or "messages" ({"role", "content"}; the
    content may be a list of segments), which the tokenizer's chat template writes, or "examples" ({"input", "output"})
    with a "question"; if you like an "id", and an "answer", which the model writes where there is none. A segment
    with "ranked": false, such as a question, is shown and not ranked.

    Writes one row for each segment and part of an answer (the whole, its sentences): ΔLP (the bits of log2 probability
    that it loses without the segment's contribution), the segment's rank, the log2 probability with and without it.
    The beginning of sequence, the template and the answer's own tokens are sources of their own, without a rank. On a
    terminal the segments are shown in order of rank, unless --format is given.
    """
    from decomp.cli.common import made_now, silence_libraries
    from decomp.cli.running import Job, check_output_options, deliver, device_here
    from decomp.corpus.context_items import read_context_items
    from decomp.settings import context_settings

    settings = {name: values[name] for name in values if name not in NO_SETTINGS}
    read = read_context_items(items)[:limit]
    check_output_options(values, (items, values["model"]))
    checked = context_settings(device=device_here(values), **settings)
    from decomp.jobs import open_contexts  # imports torch

    silence_libraries()
    opened = open_contexts(read, checked, values["model"])
    made = {**made_now(opened.model.about(), opened.model.default_baseline), **opened.contents()}
    job = Job(opened.work(), opened.model, values["model"], made)
    if goes_to_a_person(values):
        show(job)
    else:
        deliver(job, values)


def goes_to_a_person(values: dict[str, Any]) -> bool:
    """Return whether the scores go to a terminal and no format is given."""
    from decomp.cli.scoring import on_terminal

    return all(values[name] is None for name in ("output", "format_name", "run_folder")) and on_terminal()


def show(job: Any) -> None:
    """Print the segments of each item in order of rank."""
    from decomp.cli.running import with_progress
    from decomp.tables.table import Table

    Table.from_blocks(job.work.columns, job.work.table(with_progress(job, quiet=False)), job.made).show()
