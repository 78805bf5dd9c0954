"""Digests: whether contents are the same, and still what was written."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

LENGTH = 16
"""Hexadecimal digits that are kept: against mistakes and damage, not against forgers."""


def digest(contents: Iterable[bytes]) -> str:
    """Return the SHA-256, shortened, of contents and of where each ends."""
    total = hashlib.sha256()
    for content in contents:
        total.update(len(content).to_bytes(8, "big") + content)
    return total.hexdigest()[:LENGTH]


def file_digest(path: Path, before: bytes = b"") -> str:
    """Return the SHA-256, shortened, of a file's bytes (behind some others), read piece by piece.

    OSError where it can't be read.
    """
    total = hashlib.sha256(before)
    with path.open("rb") as file:
        while content := file.read(2**20):
            total.update(content)
    return total.hexdigest()[:LENGTH]
