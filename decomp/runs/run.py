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
from typing import Any, BinaryIO, NamedTuple

from decomp.io.digests import digest
from decomp.io.files import write_whole

MANIFEST = "manifest.json"
SUFFIX = ".run"
FOLDER_SIZE = 1000
"""Windows whose parts share a folder."""

Batch = range
"""Numbers of the windows that are computed together."""


class PlannedWindow(NamedTuple):
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
    """Pieces of one table, each named by its windows, and the digest of these and its content:
    `parts/00000/00000012-00000015-0123456789abcdef.tsv`."""

    header: str
    """What the table, and each part, begins with."""
    suffix: str

    def done(self, run: Path) -> set[int]:
        """Return the numbers of the windows that have a part."""
        return {number for windows, _ in self.in_order(run) for number in windows}

    def in_order(self, run: Path) -> list[tuple[range, Path]]:
        """Return the parts, without those of processes that did the same work at once and cut it otherwise."""
        found = []
        for path in run.glob(f"parts/*/*{self.suffix}"):
            if match := re.fullmatch(r"(\d+)-(\d+)-[0-9a-f]+", path.name.removesuffix(self.suffix)):
                found.append((range(int(match[1]), int(match[2])), path))
        chosen: list[tuple[range, Path]] = []
        for windows, path in sorted(found, key=lambda part: (part[0].start, -part[0].stop)):
            if not chosen or windows.start >= chosen[-1][0].stop:
                chosen.append((windows, path))
        return chosen

    def name(self, windows: range, content: bytes) -> str:
        """Return what a part is called: where its content belongs, and what it is."""
        place = f"{windows.start:08}-{windows.stop:08}"
        return f"{place}-{digest([place.encode(), content])}{self.suffix}"

    def write(self, run: Path, windows: range, content: bytes) -> None:
        """Write a part, complete or absent. CannotWriteError, a ValueError, where there is no room."""
        whole = self.header.encode() + content
        write_whole(run / "parts" / f"{windows.start // FOLDER_SIZE:05}" / self.name(windows, whole), whole)

    def read(self, windows: range, path: Path) -> bytes:
        """Return a part whole. ValueError where it is no file, or not what was written for these windows."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(f"can't read {path} ({error.strerror}): remove it and run the command again") from error
        if self.name(windows, content) != path.name or not content.startswith(self.header.encode()):
            raise ValueError(f"{path} is damaged: remove it and run the command again")
        return content

    def check(self, run: Path, windows: Sequence[PlannedWindow]) -> None:
        """Raise ValueError for a part that is not what was written, or of windows that the run has not."""
        for numbers, path in self.in_order(run):
            self.read(numbers, path)
            if numbers.stop > len(windows):
                raise ValueError(f"{path} is of another run, this one has {len(windows)} windows: remove it")

    def remove(self, run: Path) -> None:
        """Remove all parts."""
        shutil.rmtree(run / "parts", ignore_errors=True)


@dataclass(frozen=True)
class WindowFiles:
    """Files beside the run's folder, of each window the same, named with its number for `{n}`; they have digests of
    their own, which are checked where their numbers are read."""

    names: tuple[str, ...]

    def done(self, run: Path) -> set[int]:
        """Return the numbers of the windows that have all their files."""
        there = set(os.listdir(run.parent))
        numbers = []
        for name in self.names:
            before, _, after = name.rpartition("{n}")
            matches = (re.fullmatch(f"{re.escape(before)}(\\d+){re.escape(after)}", file) for file in there)
            numbers.append({int(match[1]) for match in matches if match})
        return set.intersection(*numbers)

    def paths(self, run: Path, number: int) -> list[Path]:
        """Return the files of one window."""
        return [run.parent / str(number).join(name.rsplit("{n}", 1)) for name in self.names]

    def write(self, run: Path, windows: range, content: bytes) -> None:
        """Do nothing: they are written as they are computed."""

    def check(self, run: Path, windows: Sequence[PlannedWindow]) -> None:
        """Raise ValueError for files that are not whole, or of another window than their names say."""
        # Not before: what shows how a run is getting on must not wait for torch.
        from decomp.core.storage import stored_window

        for number in sorted(self.done(run)):
            if number >= len(windows):
                continue
            paths = self.paths(run, number)
            if folder := next((path for path in paths if not path.is_file()), None):
                raise ValueError(f"{folder} is no file: remove it and run the command again")
            window = stored_window(next(path for path in paths if path.suffix != ".pt"))
            if window is not None and (window["article"], window["number"]) != windows[number][:2]:
                raise ValueError(
                    f"{paths[0]} holds window {window['number']} of article {window['article']}, not the one that its "
                    "name says: remove it and run the command again"
                )

    def remove(self, run: Path) -> None:
        """Do nothing: they belong to the command that wrote them."""


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

    def check(self) -> None:
        """Raise ValueError, with its file, for anything done that is not what was written."""
        self.store.check(self.folder, self.windows)

    def refuse_incomplete(self) -> None:
        """Raise ValueError, with how many and which, if windows are missing."""
        done = self.done()
        if missing := [number for number in range(len(self.windows)) if number not in done]:
            first = self.windows[missing[0]]
            raise ValueError(
                f"{len(missing)} of {len(self.windows)} windows are missing in {self.folder}, the first is window "
                f"{first.number} of article {first.article}: run its command again, or see decomp status {self.folder}"
            )

    def table_parts(self) -> TableParts:
        """Return the store of a run that makes a table. ValueError for one that stores decompositions."""
        if isinstance(self.store, WindowFiles):
            raise ValueError(f"{self.folder} is a run of decomp decompose, whose results are files and no table")
        return self.store

    def parts(self) -> list[tuple[range, Path]]:
        """Return the windows and files of a complete run's table, in order. ValueError if windows are missing."""
        store = self.table_parts()
        self.refuse_incomplete()
        return store.in_order(self.folder)

    def write_table(self, file: BinaryIO) -> None:
        """Write the parts one after another. ValueError if windows are missing, or parts are not what was written."""
        parts, store = self.parts(), self.table_parts()
        header = store.header.encode()
        file.write(header)
        for windows, path in parts:
            file.write(store.read(windows, path)[len(header) :])

    def remove(self) -> None:
        """All of it, the manifest last: without one, parts would belong to whoever comes next."""
        self.store.remove(self.folder)
        for name in ("journal", "outputs"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / MANIFEST).unlink(missing_ok=True)
