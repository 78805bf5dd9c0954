"""What a run keeps of each window that is done: a part of a table, or files beside the run."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decomp.io.digests import file_digest
from decomp.io.files import CannotWriteError, complete_or_absent
from decomp.runs.planned import PlannedWindow

if TYPE_CHECKING:
    from decomp.tables.blocks import Block

FOLDER_SIZE = 100
"""Windows whose parts share a folder, and become one part when all are done."""
SUFFIX = ".parquet"


@dataclass(frozen=True)
class TableParts:
    """Pieces of one table, each named by its windows, and the digest of these and its content:
    `parts/00000/00000012-00000015-0123456789abcdef.parquet`."""

    columns: tuple[str, ...]
    count: int
    """How many windows the run has."""

    def done(self, run: Path) -> set[int]:
        """Return the numbers of the windows that have a part."""
        return {number for windows, _ in self.in_order(run) for number in windows}

    def all(self, run: Path) -> list[tuple[range, Path]]:
        """Return all parts by their windows, the longest of those that begin with the same one first."""
        found = []
        for path in run.glob(f"parts/*/*{SUFFIX}"):
            if match := re.fullmatch(r"(\d+)-(\d+)-[0-9a-f]+", path.name.removesuffix(SUFFIX)):
                found.append((range(int(match[1]), int(match[2])), path))
        return sorted(found, key=lambda part: (part[0].start, -part[0].stop))

    def in_order(self, run: Path) -> list[tuple[range, Path]]:
        """Return the parts, without those of processes that did the same work at once and cut it otherwise, and those
        that have become one."""
        chosen: list[tuple[range, Path]] = []
        for windows, path in self.all(run):
            if not chosen or windows.start >= chosen[-1][0].stop:
                chosen.append((windows, path))
        return chosen

    def name(self, windows: range, content: Path) -> str:
        """Return what a part is called: where its content belongs, and what it is."""
        place = f"{windows.start:08}-{windows.stop:08}"
        return f"{place}-{file_digest(content, place.encode())}{SUFFIX}"

    def write(self, run: Path, windows: range, pieces: "Sequence[Block]") -> None:
        """Write a part, complete or absent; the one that completes a folder is written as one with all others of it.

        The whole is there before its pieces go: whoever looks meanwhile finds either, and takes the whole.
        CannotWriteError, a ValueError, where there is no room.
        """
        others = self.rest_of_folder(run, windows)
        before = [part for part in others if part[0].stop <= windows.start]
        after = others[len(before) :]
        whole = range(before[0][0].start if before else windows.start, after[-1][0].stop if after else windows.stop)
        blocks = chain(blocks_of(before), pieces, blocks_of(after))
        self.write_part(run, whole, blocks)
        if others:
            self.tidy(run)

    def rest_of_folder(self, run: Path, windows: range) -> list[tuple[range, Path]]:
        """Return the other parts of a folder that this one completes; none if it does not, or one is damaged."""
        number = windows.start // FOLDER_SIZE
        others = [part for part in self.in_order(run) if part[0] != windows]
        own = [part for part in others if part[0].start // FOLDER_SIZE == number]
        missing = {*range(number * FOLDER_SIZE, min((number + 1) * FOLDER_SIZE, self.count))} - {*windows}
        for numbers, _ in others:
            missing -= {*numbers}
        places = sorted([windows, *(numbers for numbers, _ in own)], key=lambda numbers: numbers.start)
        adjacent = all(one.stop == next.start for one, next in pairwise(places))
        return own if not missing and adjacent and all(starmap(self.is_whole, own)) else []

    def write_part(self, run: Path, windows: range, blocks: "Iterable[Block]") -> None:
        """Write one part. CannotWriteError, a ValueError, where there is no room."""
        from decomp.tables.parquet import parquet_writer

        folder = run / "parts" / f"{windows.start // FOLDER_SIZE:05}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (
                complete_or_absent(folder / SUFFIX, named=lambda beside: self.name(windows, beside)) as beside,
                beside.open("wb") as file,
                parquet_writer(file, self.columns, None) as write,
            ):
                for block in blocks:
                    write(block)
        except OSError as error:
            raise CannotWriteError(f"can't write {folder}: {error.strerror or error}") from error

    def is_whole(self, windows: range, path: Path) -> bool:
        """Return whether a part is what was written for these windows."""
        try:
            return self.name(windows, path) == path.name
        except OSError:
            return False

    def check_part(self, windows: range, path: Path) -> None:
        """Raise ValueError for a part that can't be read, or is not what was written for these windows."""
        try:
            named = self.name(windows, path)
        except OSError as error:
            raise ValueError(f"can't read {path} ({error.strerror}): remove it and run the command again") from error
        if named != path.name:
            raise ValueError(f"{path} is damaged: remove it and run the command again")

    def check(self, run: Path, windows: "Sequence[PlannedWindow]") -> None:
        """Raise ValueError for a part that is not what was written, or of windows that the run has not."""
        for numbers, path in self.in_order(run):
            self.check_part(numbers, path)
            if numbers.stop > len(windows):
                raise ValueError(f"{path} is of another run, this one has {len(windows)} windows: remove it")

    def tidy(self, run: Path) -> None:
        """Remove what a killed process left of parts that have become one, and what was computed twice."""
        kept = {path for _, path in self.in_order(run)}
        for _, path in self.all(run):
            if path not in kept:
                path.unlink(missing_ok=True)

    def remove(self, run: Path) -> None:
        """Remove all parts."""
        shutil.rmtree(run / "parts", ignore_errors=True)


def blocks_of(parts: Sequence[tuple[range, Path]]) -> "Iterator[Block]":
    """Yield the rows of parts."""
    from decomp.tables.parquet import parquet_blocks

    return chain.from_iterable(parquet_blocks(path) for _, path in parts)


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

    def write(self, run: Path, windows: range, pieces: "Sequence[Block]") -> None:
        """Do nothing: they are written as they are computed."""

    def check(self, run: Path, windows: "Sequence[PlannedWindow]") -> None:
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

    def tidy(self, run: Path) -> None:
        """Do nothing: nothing of them is left over."""

    def remove(self, run: Path) -> None:
        """Do nothing: they belong to the command that wrote them."""


Store = TableParts | WindowFiles
STORES: dict[str, type[Any]] = {"table": TableParts, "files": WindowFiles}
