"""`decomp status`: the progress of runs."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from decomp.cli import layout
from decomp.report.readable import one_line

if TYPE_CHECKING:
    from decomp.runs.run import Run
    from decomp.runs.status import Amount

WATCHED = 5
"""Seconds between two updates of --watch."""
SHOWN = 20
"""The most failures that are listed."""


@layout.command(
    "status",
    """
    echo "The keys to the cabinet are on the table." > keys.txt
    decomp score keys.txt demo-opt --run runs/keys
    decomp status runs/keys
    """,
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Show it again every few seconds, until all is done.")
def command(folder: Path, watch: bool) -> None:
    """Show what is done in a run, what is left, and what failed.

    FOLDER is what --run was given, or the --output-dir of decomp decompose.
    """
    from decomp.runs.manifest import runs_in

    while True:
        runs = runs_in(folder)
        if watch and sys.stdout is not None and sys.stdout.isatty():
            click.clear()
        click.echo("\n\n".join("\n".join(report(run)) for run in runs))
        if not watch or all(run.is_complete() for run in runs):
            return
        time.sleep(WATCHED)


def report(run: "Run") -> list[str]:
    """Return the lines on a run: what is done, the rate, the time left, its shards, and what failed."""
    from decomp.runs.plan import duration
    from decomp.runs.status import status_of

    status = status_of(run)
    request = run.request
    lines = [
        f"{run.folder}: decomp {request['command']}, model {request['model']['model']}",
        f"  done    {share(run, status.done, status.total)}",
    ]
    if status.pairs_per_second is not None and status.total.targets:
        lines.append(f"  rate    {status.pairs_per_second:,.0f} pairs/s")
    if status.seconds_left:
        lines.append(
            f"  left    {duration(status.seconds_left)} at the latest rate, predicted from the {run.what}s' lengths"
        )
    for part in status.shares:
        wrote = f"last wrote {duration(time.time() - part.last)} ago"
        lines.append(f"  shard {part.shard}  {share(run, part.done, part.total)}; {wrote}")
    if status.failed:
        lines.append(f"  failed  {sum(map(len, status.failed))} {run.what}s; the same command tries them again:")
    for items, error in list(status.failed.items())[:SHOWN]:
        places = "; ".join(run.items[n].key for n in items[:3])
        lines.append(f"          {one_line(places)}{' …' if len(items) > 3 else ''}: {one_line(error)}")
    return lines


def share(run: "Run", done: "Amount", total: "Amount") -> str:
    """Return the part of the work that is done, as text."""
    percent = int(100 * done.cost / max(1, total.cost))
    tokens = f"{done.targets:,} of {total.targets:,} tokens, " if total.targets else ""
    return f"{done.items:,} of {total.items:,} {run.what}s, {tokens}{percent} % of the work"
