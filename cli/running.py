"""Runs that can be interrupted, as commands start, resume and work through them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from tqdm import tqdm

from decomp.cli.common import made_now, say
from decomp.corpus.windows import TokenisedWindow
from decomp.jobs import contents
from decomp.models.base import DecomposedModel
from decomp.runs.cost import CostModel
from decomp.runs.planned import PlannedWindow
from decomp.runs.run import Batch, Run, Shard
from decomp.runs.work import Outcome, journal_of, keep, outcomes
from decomp.tables.blocks import Block

T = TypeVar("T")


def request_of_run(
    model: DecomposedModel, articles: Sequence[object], windows: Sequence[TokenisedWindow]
) -> dict[str, Any]:
    """Return all that the bytes of this command's results depend on: contents by their digests, versions, options."""
    return {**made_now(model.about(), model.default_baseline), **contents(articles, windows)}


def planned(windows: Sequence[TokenisedWindow], cost: CostModel) -> list[PlannedWindow]:
    lengths = [len(window.ids) for window in windows]
    return [
        PlannedWindow(
            w.window.article, w.window.number, length, len(w.window.targets), cost.pairs(length), cost(length)
        )
        for w, length in zip(windows, lengths, strict=True)
    ]


class Bar:
    """Windows, predicted tokens and pairs done; the bar and the time left go by predicted cost."""

    def __init__(self, bar: Any, windows: Sequence[PlannedWindow]) -> None:
        self.bar, self.windows = bar, windows
        self.done = self.targets = self.pairs = 0

    def advance(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            window = self.windows[number]
            self.done, self.targets, self.pairs = (
                self.done + 1,
                self.targets + window.targets,
                self.pairs + window.pairs,
            )
            self.bar.update(window.cost)
        seconds = self.bar.format_dict["elapsed"]
        speed = tqdm.format_sizeof(self.pairs / seconds) if seconds else "?"
        self.bar.set_postfix_str(f"{self.done}/{self.bar.windows} windows, {self.targets} tokens, {speed} pairs/s")


@contextmanager
def cost_progress(windows: Sequence[PlannedWindow], numbers: Iterable[int], quiet: bool) -> Iterator[Bar]:
    """Show a bar on a terminal's stderr over some of the windows."""
    chosen = list(numbers)
    total = sum(windows[number].cost for number in chosen)
    shape = "{percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
    with tqdm(total=total, bar_format=shape, smoothing=0, delay=1, disable=True if quiet else None) as bar:
        bar.windows = len(chosen)
        yield Bar(bar, windows)


def work_through(
    run: Run, shard: Shard, work: Callable[[list[list[Batch]]], Iterator[Outcome]], quiet: bool, **means: Any
) -> None:
    """Do what is left of one shard.

    Ends with a line on how to go on when interrupted (exit code 130) or told to end (143), with 1 where windows failed.
    """
    units = run.units(shard)
    to_do = run.left(shard)
    own, failed = sum(map(len, run.share(shard))), list[Outcome]()
    if len(to_do) < own:
        say(f"{own - len(to_do)} of {own} windows are done, {len(to_do)} to do", quiet)
    if not units:
        return
    journal = journal_of(run, shard, **means)
    try:
        with cost_progress(run.windows, to_do, quiet) as bar:
            for outcome in work(units):
                keep(run, outcome, journal)
                bar.advance(outcome.windows)
                failed += [outcome] if outcome.error is not None else []
    except (KeyboardInterrupt, SystemExit) as stop:
        done = len(run.done())
        click.echo(
            f"\nStopped: {done} of {len(run.windows)} windows are done and kept. The same command goes on from here.",
            err=True,
        )
        if isinstance(stop, KeyboardInterrupt):
            raise click.exceptions.Exit(130) from None
        raise
    if failed:
        raise click.ClickException(
            f"{sum(len(o.windows) for o in failed)} of {own} windows failed, the first with: {failed[0].error}\n"
            f"The same command tries them again; decomp status {run.folder} lists them."
        )


def locally(windows: list[T], compute: Callable[[list[T]], Block]) -> Callable[[list[list[Batch]]], Iterator[Outcome]]:
    """Return the engine that computes in this process: from units of batches to their outcomes."""

    def work(batch: Batch) -> Block:
        return compute(windows[batch.start : batch.stop])

    return lambda units: (outcome for unit in units for outcome in outcomes(unit, work))
