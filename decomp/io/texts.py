"""Texts that people bring: whole files of UTF-8, packed with gzip or not, of a size that fits into memory."""

import gzip
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from decomp.io.amounts import format_bytes

Packed = IO[bytes] | gzip.GzipFile
"""A file open for reading, unpacked as it is read."""
STDIN = "-"
LARGEST_FILE = 2**29
"""The most bytes of text that a file may have, unpacked: a file of some KiB can unpack to many GiB."""
BLOCK = 2**20


def read_text(path: str | Path) -> str:
    """Return the text of a file, unpacked where its name ends in `.gz`; that of standard input for `-`.

    ValueError for a file that is missing, damaged, not UTF-8, or larger than `LARGEST_FILE` bytes when unpacked.
    """
    name = "standard input" if str(path) == STDIN else str(path)
    try:
        with opened(path) as file:
            return read_bounded(file, name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: invalid byte at offset {error.start}; convert it first") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{name} is truncated or no gzip file: pack it again") from error
    except OSError as error:
        raise ValueError(f"can't read {name}: {error.strerror or error}") from error


@contextmanager
def opened(path: str | Path) -> Iterator[Packed]:
    """Open a file for reading, or standard input. ValueError where standard input is closed."""
    if str(path) == STDIN:
        if sys.stdin is None:
            raise ValueError("can't read standard input: it is closed; give a file")
        yield sys.stdin.buffer
    elif str(path).endswith(".gz"):
        with gzip.open(path) as unpacked:
            yield unpacked
    else:
        with Path(path).open("rb") as file:
            yield file


def read_bounded(file: Packed, name: str) -> bytearray:
    """Return the content of a file. ValueError, with `name`, for more than `LARGEST_FILE` bytes."""
    content = bytearray()
    while block := file.read(BLOCK):
        content += block
        if len(content) > LARGEST_FILE:
            raise ValueError(f"{name} has more than {format_bytes(LARGEST_FILE)} of text: split it into several files")
    return content


def suffix_of(path: Path) -> str:
    """Return a file's suffix, that before `.gz` where it has two."""
    return Path(path.name.removesuffix(".gz")).suffix


def check_unicode(text: str, what: str) -> None:
    """Raise ValueError, with `what` in its message, for a text with half of a surrogate pair, which is not Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} has \\u{ord(text[error.start]):04x}, half of a surrogate pair: it is no Unicode text"
        ) from error
