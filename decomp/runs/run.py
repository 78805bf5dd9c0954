"""Runs that can be interrupted: a folder in which an item of work is done when its part is there.

The manifest says what is computed and is never written again; parts are complete or absent; the journals say how long
parts took and which failed, and nothing depends on them.
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decomp.runs.parts import Store, TableParts, WindowFiles, blocks_of
from decomp.tables.work import WorkItem

if TYPE_CHECKING:
    from decomp.tables.blocks import Block

MANIFEST = "manifest.json"
SUFFIX = ".run"
Batch = range
"""Numbers of the items that are computed together."""


@dataclass(frozen=True)
class Shard:
    """The `index`-th (from 1) of `count` shares of the items."""

    index: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Return the shard that a text such as `3/8` names, the third of eight. ValueError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    shard = Shard(int(match[1]), int(match[2])) if match else Shard(0, 0)
    if not 1 <= shard.index <= shard.count:
        raise ValueError(f"the shard must be I/N with I from 1 to N, such as 3/8, not {text!r}")
    return shard


@dataclass(frozen=True)
class Run:
    """An interruptible piece of work: its folder, its items, and where their results are kept."""

    folder: Path
    request: Mapping[str, Any]
    """All that the bytes of the result depend on."""
    what: str
    """The name of one item: window, item, fact, prompt."""
    items: Sequence[WorkItem]
    batches: Sequence[Batch]
    unit_cost: int
    """The most that is computed between two parts, in the units of `WorkItem.cost`: what an interruption may lose."""
    store: Store

    def done(self) -> set[int]:
        """Return the numbers of the items that need no more work."""
        done = self.store.done(self.folder)
        return {number for batch in self.batches if done.issuperset(batch) for number in batch}

    def cost(self, items: Iterable[int]) -> int:
        """Return the summed cost of some items, given by their numbers."""
        return sum(self.items[number].cost for number in items)

    def share(self, shard: Shard) -> list[Batch]:
        """Return the batches of one shard: consecutive, with about the same cost as those of every other shard."""
        total, before, own = self.cost(range(len(self.items))), 0, []
        for batch in self.batches:
            cost = self.cost(batch)
            if (2 * before + cost) * shard.count // (2 * total) == shard.index - 1:
                own.append(batch)
            before += cost
        return own

    def left(self, shard: Shard) -> list[int]:
        """Return the numbers of the items of one shard that still need work."""
        done = self.done()
        return [number for batch in self.share(shard) for number in batch if number not in done]

    def units(self, shard: Shard) -> list[list[Batch]]:
        """Return the remaining work of one shard, in order: groups of consecutive batches that make one part each."""
        done = self.done()
        units: list[list[Batch]] = []
        room = 0
        for batch in self.share(shard):
            if done.issuperset(batch):
                continue
            cost = self.cost(batch)
            if not units or units[-1][-1].stop != batch.start or cost > room:
                units.append([batch])
                room = self.unit_cost - cost
            else:
                units[-1].append(batch)
                room -= cost
        return units

    def check(self) -> None:
        """Raise ValueError, naming the file, for a result that has changed since it was written."""
        self.store.check(self.folder, self.items)

    def refuse_incomplete(self) -> None:
        """Raise ValueError, saying how many and which, if items are missing."""
        done = self.done()
        if missing := [number for number in range(len(self.items)) if number not in done]:
            first = self.items[missing[0]]
            raise ValueError(
                f"{len(missing)} of {len(self.items)} {self.what}s are missing in {self.folder}, the first is "
                f"{first.key}: run its command again, or see decomp status {self.folder}"
            )

    def table_parts(self) -> TableParts:
        """Return the parts of a run that makes a table. ValueError for a run that stores decompositions."""
        if isinstance(self.store, WindowFiles):
            raise ValueError(f"{self.folder} is a run of decomp decompose, whose results are files and no table")
        return self.store

    def is_complete(self) -> bool:
        """Return whether no item needs more work."""
        return len(self.done()) == len(self.items)

    def rows(self) -> "Iterator[Block]":
        """Yield the rows of all items of a complete run, in order. ValueError if some are missing or damaged."""
        store = self.table_parts()
        self.refuse_incomplete()
        parts = store.in_order(self.folder)
        for items, path in parts:
            store.check_part(items, path)
        return blocks_of([path for _, path in parts])

    def remove(self) -> None:
        """Remove the whole run, the manifest last: parts without one would be taken for those of the next run."""
        self.store.remove(self.folder)
        for name in ("journal", "outputs"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / MANIFEST).unlink(missing_ok=True)
