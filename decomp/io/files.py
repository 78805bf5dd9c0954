"""Files that are complete or absent."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED = 3600
"""Seconds after which a file being written belongs to nobody: parts are written in one go."""


class CannotWriteError(ValueError):
    """Nothing more can be written: the disk is full, or the folder closed."""


@contextmanager
def complete_or_absent(path: Path, keep_existing: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to it, on disk, if nothing went wrong, removed otherwise.

    `keep_existing`: whoever is first makes the file, the others leave it.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise CannotWriteError(f"can't write into {path.parent}: {error.strerror}") from error
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o666 & ~current_umask())
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        if keep_existing:
            move_if_absent(beside, path)
        else:
            beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def move_if_absent(beside: Path, path: Path) -> None:
    """A link, unlike a rename, replaces nothing; file systems without links have to do with a look."""
    try:
        os.link(beside, path)
    except FileExistsError:
        pass
    except OSError:
        if not path.exists():
            beside.replace(path)
    beside.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes, keep_existing: bool = False) -> None:
    """CannotWriteError, a ValueError, where there is no room."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with complete_or_absent(path, keep_existing) as beside:
            beside.write_bytes(content)
    except OSError as error:
        raise CannotWriteError(f"can't write {path}: {error.strerror}") from error


def remove_abandoned(folder: Path) -> None:
    """What a killed process was writing into this folder or those below; what others write now is younger."""
    for beside in folder.glob("**/.*.part"):
        with suppress(FileNotFoundError):
            if time.time() - beside.stat().st_mtime > ABANDONED:
                beside.unlink()


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def refuse_existing(path: Path, overwrite: bool) -> None:
    """ValueError for a file that is there and may not be replaced."""
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists: give --overwrite (overwrite=True) to replace it, or another folder")
