"""Runs over a corpus that can be interrupted: a folder in which a window is done when its part is there.

The manifest says what was asked and is never written again; parts are complete or absent; the journals say
how long parts took and what failed, and nothing depends on them.
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from decomp.io.files import write_whole

MANIFEST = "manifest.json"
SUFFIX = ".run"
FOLDER_SIZE = 1000
"""Windows whose parts share a folder."""

Batch = range
"""Numbers of the windows that are computed together."""


@dataclass(frozen=True)
class PlannedWindow:
    """What a window will be, and what it is predicted to cost."""

    article: int
    number: int
    tokens: int
    targets: int
    pairs: int
    cost: int
    """Floating-point operations."""


@dataclass(frozen=True)
class Shard:
    """The `index`-th (from 1) of `count` shares of the windows."""

    index: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """`3/8` is the third of eight. ValueError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    shard = Shard(int(match[1]), int(match[2])) if match else Shard(0, 0)
    if not 1 <= shard.index <= shard.count:
        raise ValueError(f"the shard must be I/N with I from 1 to N, such as 3/8, not {text!r}")
    return shard


@dataclass(frozen=True)
class TableParts:
    """Pieces of one table, each named by its windows: `parts/00000/00000012-00000015.tsv`."""

    header: str
    """What the table, and each part, begins with."""
    suffix: str

    def done(self, run: Path) -> set[int]:
        return {number for windows, _ in self.in_order(run) for number in windows}

    def in_order(self, run: Path) -> list[tuple[range, Path]]:
        """The parts, without those of processes that did the same work at once and cut it otherwise."""
        found = []
        for path in run.glob(f"parts/*/*{self.suffix}"):
            if match := re.fullmatch(r"(\d+)-(\d+)", path.name.removesuffix(self.suffix)):
                found.append((range(int(match[1]), int(match[2])), path))
        chosen: list[tuple[range, Path]] = []
        for windows, path in sorted(found, key=lambda part: (part[0].start, -part[0].stop)):
            if not chosen or windows.start >= chosen[-1][0].stop:
                chosen.append((windows, path))
        return chosen

    def write(self, run: Path, windows: range, content: bytes) -> None:
        name = f"{windows.start:08}-{windows.stop:08}{self.suffix}"
        write_whole(run / "parts" / f"{windows.start // FOLDER_SIZE:05}" / name, self.header.encode() + content)

    def remove(self, run: Path) -> None:
        shutil.rmtree(run / "parts", ignore_errors=True)


@dataclass(frozen=True)
class WindowFiles:
    """Files beside the run's folder, of each window the same, named with its number for `{n}`."""

    names: tuple[str, ...]

    def done(self, run: Path) -> set[int]:
        there = set(os.listdir(run.parent))
        numbers = []
        for name in self.names:
            before, _, after = name.rpartition("{n}")
            matches = (re.fullmatch(f"{re.escape(before)}(\\d+){re.escape(after)}", file) for file in there)
            numbers.append({int(match[1]) for match in matches if match})
        return set.intersection(*numbers)

    def write(self, run: Path, windows: range, content: bytes) -> None:
        """They are written as they are computed."""

    def remove(self, run: Path) -> None:
        """They belong to the command that wrote them."""


Store = TableParts | WindowFiles
STORES: dict[str, type[Any]] = {"table": TableParts, "files": WindowFiles}


@dataclass(frozen=True)
class Run:
    """A run as its manifest has it."""

    folder: Path
    request: Mapping[str, Any]
    """All that the bytes of the result depend on."""
    windows: Sequence[PlannedWindow]
    batches: Sequence[Batch]
    unit_cost: int
    """Most that is computed between two parts: what an interruption may cost."""
    store: Store

    def done(self) -> set[int]:
        """The windows that need no more work."""
        done = self.store.done(self.folder)
        return {number for batch in self.batches if done.issuperset(batch) for number in batch}

    def cost(self, windows: Iterable[int]) -> int:
        return sum(self.windows[number].cost for number in windows)

    def share(self, shard: Shard) -> list[Batch]:
        """The batches of one shard: consecutive, and of about the same cost as every other shard's."""
        total, before, own = self.cost(range(len(self.windows))), 0, []
        for batch in self.batches:
            cost = self.cost(batch)
            if (2 * before + cost) * shard.count // (2 * total) == shard.index - 1:
                own.append(batch)
            before += cost
        return own

    def left(self, shard: Shard) -> list[int]:
        """The windows of one shard that need work."""
        done = self.done()
        return [number for batch in self.share(shard) for number in batch if number not in done]

    def units(self, shard: Shard) -> list[list[Batch]]:
        """What is left to do, in order: consecutive batches that make one part."""
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

    def parts(self) -> list[Path]:
        """The files of a complete run's table, in order. ValueError if windows are missing."""
        if isinstance(self.store, WindowFiles):
            raise ValueError(f"{self.folder} is a run of decomp decompose, whose results are files and no table")
        if missing := len(self.windows) - len(self.done()):
            raise ValueError(
                f"{missing} of {len(self.windows)} windows are missing in {self.folder}: run its command again, "
                f"or see decomp status {self.folder}"
            )
        return [path for _, path in self.store.in_order(self.folder)]

    def write_table(self, file: BinaryIO) -> None:
        """The parts one after another. ValueError if windows are missing."""
        paths = self.parts()
        assert isinstance(self.store, TableParts)
        header = self.store.header.encode()
        file.write(header)
        for path in paths:
            with path.open("rb") as part:
                if part.read(len(header)) != header:
                    raise ValueError(f"{path} is damaged: remove it and run the command again")
                shutil.copyfileobj(part, file, 2**20)

    def remove(self) -> None:
        """All of it, the manifest last: without one, parts would belong to whoever comes next."""
        self.store.remove(self.folder)
        for name in ("journal", "outputs"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / MANIFEST).unlink(missing_ok=True)
