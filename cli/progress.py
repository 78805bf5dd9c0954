"""Progress and results of commands: a bar on a terminal, a line every now and then elsewhere."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from decomp.cli.main import BEGAN
from decomp.runs.plan import duration
from decomp.tables.blocks import Block, Row, length
from decomp.tables.columns import Writer

LOG_EVERY = 30
"""Seconds between two lines of progress where there is no bar."""
BAR_DELAY = 1
"""The number of seconds after which a bar is shown."""
SHAPE = "{percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
clock = time.monotonic


class Progress:
    """The progress of a command through its items, by their predicted costs; `tokens` counts predicted tokens."""

    def __init__(self, bar: Any, what: str, items: int, cost: int, is_logged: bool) -> None:
        self.bar, self.what, self.items, self.cost, self.is_logged = bar, what, items, cost, is_logged
        self.done = self.tokens = self.spent = 0
        self.began = self.logged = clock()

    def advance(self, cost: int = 1, tokens: int = 0) -> None:
        """Count an item as done, and show the progress."""
        self.done, self.tokens, self.spent = self.done + 1, self.tokens + tokens, self.spent + cost
        if not self.bar.disable:
            self.bar.set_postfix_str(self.text(), refresh=False)
            self.bar.update(cost)
        elif self.is_logged and clock() - self.logged >= LOG_EVERY:
            self.logged = clock()
            click.echo(f"{self.text()}, {self.left()} left", err=True)

    def text(self) -> str:
        """Return the progress and the speed: `3/10 windows, 1,530 tokens, 62 tokens/s`."""
        seconds = max(clock() - self.began, 1e-9)
        number, unit = (self.tokens, "tokens") if self.tokens else (self.done, f"{self.what}s")
        tokens = f", {self.tokens:,} tokens" if self.tokens else ""
        return f"{self.done:,}/{self.items:,} {self.what}s{tokens}, {number / seconds:,.3g} {unit}/s"

    def left(self) -> str:
        """Return the time left, estimated from the cost of the remaining items."""
        return duration((clock() - self.began) * (self.cost - self.spent) / max(self.spent, 1))


@contextmanager
def progress(what: str, items: int, cost: int, quiet: bool) -> Iterator[Progress]:
    """Show progress through items: as a bar on a terminal's stderr, else as lines."""
    options = {"total": cost, "bar_format": SHAPE, "smoothing": 0, "delay": BAR_DELAY}
    with tqdm(disable=True if quiet else None, **options) as bar:
        yield Progress(bar, what, items, cost, is_logged=not quiet)


def amount(number: int, what: str) -> str:
    """Return a number of things as text: `1 row`, `1,275 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def say_wrote(path: Path, what: str = "") -> None:
    """Print, unless --quiet, what the running command wrote and how long it took: `wrote a.tsv, 9 rows, 1.2 s`."""
    context = click.get_current_context(silent=True)
    if context is None or context.params.get("quiet"):
        return
    seconds = clock() - context.meta.get(BEGAN, clock())
    took = f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
    click.echo(", ".join(filter(None, (f"wrote {path}", what, took))), err=True)


class CountingWriter:
    """A writer of rows that counts them."""

    def __init__(self, write: Writer) -> None:
        self.write, self.rows = write, 0

    def __call__(self, table: Iterable[Row] | Block) -> None:
        """Write rows, or a block of them."""
        if isinstance(table, Mapping):
            self.rows += length(table)
            self.write(table)
        else:
            self.write(self.counted(table))

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows, counting them."""
        for row in rows:
            self.rows += 1
            yield row


@contextmanager
def announced(path: Path, opened: AbstractContextManager[Writer]) -> Iterator[Writer]:
    """Open a table through its writer, and print what was written once the table is there."""
    with opened as write:
        counting = CountingWriter(write)
        yield counting
    say_wrote(path, amount(counting.rows, "row"))
