"""The results that a run keeps of items that are done: parts of a table, or files beside the run."""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decomp.io.digests import file_digest
from decomp.io.files import CannotWriteError, complete_or_absent
from decomp.tables.work import WorkItem, window_key

if TYPE_CHECKING:
    from decomp.tables.blocks import Block

FOLDER_SIZE = 100
"""Number of items whose parts share a folder, and become one part when all are done."""
SUFFIX = ".parquet"


@dataclass(frozen=True)
class TableParts:
    """The parts of one table, each in a file such as `parts/00000/00000012-00000015-0123456789abcdef.parquet`.

    The name says the first and last item of the part, and the digest of these and of its content.
    """

    columns: tuple[str, ...]
    count: int
    """The number of items in the run."""

    def done(self, run: Path) -> set[int]:
        """Return the numbers of the items that are in a part."""
        return {number for items, _ in self.in_order(run) for number in items}

    def all(self, run: Path) -> list[tuple[range, Path]]:
        """Return all parts with their items, in order; of those that begin with the same item the longest first."""
        found = []
        for path in run.glob(f"parts/*/*{SUFFIX}"):
            if match := re.fullmatch(r"(\d+)-(\d+)-[0-9a-f]+", path.name.removesuffix(SUFFIX)):
                found.append((range(int(match[1]), int(match[2])), path))
        return sorted(found, key=lambda part: (part[0].start, -part[0].stop))

    def in_order(self, run: Path) -> list[tuple[range, Path]]:
        """Return the parts that make up the table, each item in one of them.

        Processes that did the same work at once may have cut it otherwise, and parts that have become one may still be
        there.
        """
        return each_item_once(self.all(run))

    def name(self, items: range, content: Path) -> str:
        """Return the name of the file of a part: its items, and the digest of these and its content."""
        place = f"{items.start:08}-{items.stop:08}"
        return f"{place}-{file_digest(content, place.encode())}{SUFFIX}"

    def write(self, run: Path, items: range, pieces: "Sequence[Block]") -> None:
        """Write a part, complete or absent; the last part of a folder is written as one with all others in the folder.

        The joint part is there before the single ones are removed, so that a reader finds either, and takes the joint
        one. CannotWriteError, a ValueError, where there is no room.
        """
        others = self.rest_of_folder(run, items)
        before = [part for part in others if part[0].stop <= items.start]
        after = others[len(before) :]
        whole = range(before[0][0].start if before else items.start, after[-1][0].stop if after else items.stop)
        blocks = chain(blocks_of(path for _, path in before), pieces, blocks_of(path for _, path in after))
        self.write_part(run, whole, blocks)
        if others:
            self.tidy(run)

    def rest_of_folder(self, run: Path, items: range) -> list[tuple[range, Path]]:
        """Return the other parts of a folder that this one completes; none if it does not, or if one is damaged."""
        number = items.start // FOLDER_SIZE
        others = [part for part in self.in_order(run) if part[0] != items]
        own = [part for part in others if part[0].start // FOLDER_SIZE == number]
        missing = {*range(number * FOLDER_SIZE, min((number + 1) * FOLDER_SIZE, self.count))} - {*items}
        for numbers, _ in others:
            missing -= {*numbers}
        places = sorted([items, *(numbers for numbers, _ in own)], key=lambda numbers: numbers.start)
        adjacent = all(one.stop == next.start for one, next in pairwise(places))
        return own if not missing and adjacent and all(starmap(self.is_whole, own)) else []

    def write_part(self, run: Path, items: range, blocks: "Iterable[Block]") -> None:
        """Write one part. CannotWriteError, a ValueError, where there is no room."""
        folder = run / "parts" / f"{items.start // FOLDER_SIZE:05}"
        write_parquet(folder / SUFFIX, lambda beside: self.name(items, beside), self.columns, blocks)

    def is_whole(self, items: range, path: Path) -> bool:
        """Return whether a part holds what was written for these items."""
        try:
            return self.name(items, path) == path.name
        except OSError:
            return False

    def check_part(self, items: range, path: Path) -> None:
        """Raise ValueError for a part that can't be read, or whose content is not what was written for these items."""
        try:
            named = self.name(items, path)
        except OSError as error:
            raise ValueError(f"can't read {path} ({error.strerror}): remove it and run the command again") from error
        if named != path.name:
            raise ValueError(f"{path} is damaged: remove it and run the command again")

    def check(self, run: Path, items: "Sequence[WorkItem]") -> None:
        """Raise ValueError for a part that has changed since it was written, or whose items the run does not have."""
        for numbers, path in self.in_order(run):
            self.check_part(numbers, path)
            if numbers.stop > len(items):
                raise ValueError(f"{path} is of another run, this one has {len(items)} items: remove it")

    @property
    def table_columns(self) -> tuple[str, ...]:
        """Return the columns of the table that the parts are pieces of."""
        return self.columns

    def tables(self, run: Path) -> list[Path]:
        """Return the files that make up the table, in order. ValueError for one that changed since it was written."""
        parts = self.in_order(run)
        for items, path in parts:
            self.check_part(items, path)
        return [path for _, path in parts]

    def tidy(self, run: Path) -> None:
        """Remove parts that have become one but were left by a process that was killed, and parts computed twice.

        The folders are read once: a part that another process writes meanwhile is none of them.
        """
        there = self.all(run)
        kept = each_item_once(there)
        for part in there:
            if part not in kept:
                part[1].unlink(missing_ok=True)

    def remove(self, run: Path) -> None:
        """Remove all parts."""
        shutil.rmtree(run / "parts", ignore_errors=True)


def each_item_once(parts: Iterable[tuple[range, Path]]) -> list[tuple[range, Path]]:
    """Return those of some parts, given in order, that begin after the one before has ended."""
    chosen: list[tuple[range, Path]] = []
    for items, path in parts:
        if not chosen or items.start >= chosen[-1][0].stop:
            chosen.append((items, path))
    return chosen


def blocks_of(paths: Iterable[Path]) -> "Iterator[Block]":
    """Yield the rows of Parquet files, one after the other."""
    from decomp.tables.parquet import parquet_blocks

    return chain.from_iterable(map(parquet_blocks, paths))


@dataclass(frozen=True)
class ItemRows(TableParts):
    """Rows of items from which a table is made once all are there.

    The table is `table-0123456789abcdef.parquet` in the run's folder, named by its digest.

    The process that finds the last item done writes it; it can always be made again.
    """

    final: tuple[str, ...]
    """The columns of the table."""

    @property
    def table_columns(self) -> tuple[str, ...]:
        """Return the columns of the table."""
        return self.final

    def tables(self, run: Path) -> list[Path]:
        """Return the file of the table. ValueError where it is missing, or has changed since it was written."""
        found = [path for path in run.glob(f"table-*{SUFFIX}") if path.is_file()]
        if not found:
            raise ValueError(f"all of {run} is computed, its table is not made yet: run its command again")
        for path in found:
            if self.table_name(path) != path.name:
                raise ValueError(f"{path} is damaged: remove it and run the command again")
        return found[:1]

    def table_name(self, content: Path) -> str:
        """Return the name of a table with this content."""
        return f"table-{file_digest(content)}{SUFFIX}"

    def write_table(self, run: Path, blocks: "Iterable[Block]", made: Mapping[str, Any]) -> None:
        """Write the table, complete or absent; `made` is the account of how it was made that it carries.

        CannotWriteError, a ValueError, where there is no room.
        """
        before = [*run.glob(f"table-*{SUFFIX}")]
        path = write_parquet(run / SUFFIX, self.table_name, self.table_columns, blocks, made)
        for other in before:
            if other != path:
                other.unlink(missing_ok=True)

    def remove(self, run: Path) -> None:
        """Remove all parts, and the table."""
        super().remove(run)
        for path in run.glob(f"table-*{SUFFIX}"):
            path.unlink(missing_ok=True)


def write_parquet(
    path: Path,
    named: Callable[[Path], str],
    columns: Sequence[str],
    blocks: "Iterable[Block]",
    made: Mapping[str, Any] | None = None,
) -> Path:
    """Write rows to a new file beside `path`, named by its content through `named`, and return its path.

    CannotWriteError, a ValueError, where there is no room.
    """
    from decomp.tables.parquet import parquet_writer

    names = list[str]()

    def name(beside: Path) -> str:
        names.append(named(beside))
        return names[0]

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            complete_or_absent(path, named=name) as beside,
            beside.open("wb") as file,
            parquet_writer(file, columns, made) as write,
        ):
            for block in blocks:
                write(block)
    except OSError as error:
        raise CannotWriteError(f"can't write {path.parent}: {error.strerror or error}") from error
    return path.with_name(names[0])


@dataclass(frozen=True)
class WindowFiles:
    """Files beside the run's folder, the same kinds for each window, whose names have its number in place of `{n}`.

    They carry digests of their own, which are checked when their numbers are read.
    """

    names: tuple[str, ...]

    def done(self, run: Path) -> set[int]:
        """Return the numbers of the items that have all their files."""
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

    def write(self, run: Path, items: range, pieces: "Sequence[Block]") -> None:
        """Do nothing: the files are written while they are computed."""

    def check(self, run: Path, items: "Sequence[WorkItem]") -> None:
        """Raise ValueError for files that are incomplete, or belong to another window than their names say."""
        # Not before: what shows how a run is getting on must not wait for torch.
        from decomp.core.storage import stored_window

        for number in sorted(self.done(run)):
            if number >= len(items):
                continue
            paths = self.paths(run, number)
            if folder := next((path for path in paths if not path.is_file()), None):
                raise ValueError(f"{folder} is no file: remove it and run the command again")
            window = stored_window(next(path for path in paths if path.suffix != ".pt"))
            if window is not None and (key := window_key(window["article"], window["number"])) != items[number].key:
                raise ValueError(
                    f"{paths[0]} holds {key}, not {items[number].key} as its name says: remove it and run the command "
                    "again"
                )

    def tidy(self, run: Path) -> None:
        """Do nothing: these files leave nothing behind."""

    def remove(self, run: Path) -> None:
        """Do nothing: the files belong to the command that wrote them."""


Store = TableParts | WindowFiles
STORES: dict[str, type[Any]] = {"table": TableParts, "rows": ItemRows, "files": WindowFiles}
