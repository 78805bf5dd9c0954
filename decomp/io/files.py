"""Files that are complete or absent, and the rules on what may be written where, the same for all commands."""

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path

ABANDONED = 3600
"""Seconds after which an unfinished file belongs to no process: parts are written in one go."""

LONGEST_PREFIX = 40
"""The most characters of a file's name that its unfinished neighbour's repeats: names have at most 255 bytes."""


class CannotWriteError(ValueError):
    """The error for a disk that is full or a folder that can't be written into."""


@contextmanager
def complete_or_absent(
    path: Path, keep_existing: bool = False, named: Callable[[Path], str] | None = None
) -> Iterator[Path]:
    """Open a path beside `path` to write to; it is renamed to `path`, once on disk, or removed after an error.

    With `keep_existing` the first process to finish makes the file, and the others leave it. `named` gives the finished
    file another name. CannotWriteError, a ValueError, for a folder that is missing or closed.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:LONGEST_PREFIX]}.", suffix=".part")
    except OSError as error:
        raise CannotWriteError(f"can't write into {path.parent}: {error.strerror}") from error
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o666 & ~current_umask())
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        path = path if named is None else path.with_name(named(beside))
        if keep_existing:
            move_if_absent(beside, path)
        else:
            beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def move_if_absent(beside: Path, path: Path) -> None:
    """Rename unless `path` is there.

    A hard link, unlike a rename, replaces nothing; file systems without links are asked whether `path` is there.
    """
    try:
        os.link(beside, path)
    except FileExistsError:
        pass
    except OSError:
        if not path.exists():
            beside.replace(path)
    beside.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes, keep_existing: bool = False) -> None:
    """Write a file that is complete or absent, and make the folders above it.

    CannotWriteError, a ValueError, where there is no room; `keep_existing` as for `complete_or_absent`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with complete_or_absent(path, keep_existing) as beside:
            beside.write_bytes(content)
    except OSError as error:
        raise CannotWriteError(f"can't write {path}: {error.strerror}") from error


def remove_abandoned(folder: Path) -> None:
    """Remove unfinished files of processes that were killed from this folder and those below; newer ones stay."""
    for beside in folder.glob("**/.*.part"):
        with suppress(FileNotFoundError):
            if time.time() - beside.stat().st_mtime > ABANDONED:
                beside.unlink()


def current_umask() -> int:
    """Return the mask of permissions that new files are made without."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def check_outputs(
    outputs: Iterable[Path | None], inputs: Iterable[Path | str | None] = (), overwrite: bool = False
) -> None:
    """Raise ValueError, before anything is computed, for outputs that can't be written or would destroy something.

    These are two outputs with one path; an output that is an input, or a file in a folder that is one (also with
    `overwrite`); a folder, device or pipe (also with `overwrite`); a folder to write into that is missing or closed; a
    file that exists, unless `overwrite`. `None` and inputs that are not paths (a model of the hub) are skipped.
    """
    paths = [path for path in outputs if path is not None]
    for first, second in combinations(paths, 2):
        if first.resolve() == second.resolve():
            raise ValueError(f"{second} is given for two outputs: give each a file of its own")
    sources = [Path(source) for source in inputs if source is not None]
    for path in paths:
        status = status_of_file(path)
        if status is not None:
            refuse_input(path, sources)
            check_replaceable(path, status, overwrite)
        check_folder(path.parent)


def status_of_file(path: Path) -> os.stat_result | None:
    """Return the status of a file, None where there is none. ValueError for a name that a file can't have."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotWriteError(f"can't write {path}: {error.strerror}") from error


def refuse_input(path: Path, sources: Sequence[Path]) -> None:
    """Raise ValueError for an existing file that is one of the sources, or lies in a folder that is."""
    for source in sources:
        if source.exists() and (source.samefile(path) or source.resolve() in path.resolve().parents):
            where = "an input" if source.samefile(path) else f"in the input folder {source}"
            raise ValueError(f"{path} is {where}, which is never replaced: write to another file")


def check_replaceable(path: Path, status: os.stat_result, overwrite: bool) -> None:
    """Raise ValueError for an existing path that is not a file, or is one while `overwrite` is not given."""
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{path} is a folder: give the name of a file")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is a device or a pipe and no file: give a file, or nothing for standard output")
    if not overwrite:
        raise ValueError(f"{path} exists: give --overwrite (overwrite=True) to replace it, or another folder")


def check_output_folder(folder: Path) -> None:
    """Raise CannotWriteError, a ValueError, for a folder that can't be made or written into; nothing is made."""
    whole = folder.absolute()
    there = next(path for path in (whole, *whole.parents) if path.exists())
    if not there.is_dir():
        raise CannotWriteError(f"can't make the output folder {folder}: {there} is a file")
    check_folder(there)


def check_folder(folder: Path) -> None:
    """Raise CannotWriteError, a ValueError, for a folder that is missing or can't be written into."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CannotWriteError(f"can't write into {folder}: {error.strerror}") from error
