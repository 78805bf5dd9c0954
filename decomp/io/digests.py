"""Digests of contents, by which changes and damage are noticed."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

LENGTH = 16
"""The number of hexadecimal digits kept: enough against mistakes and damage, not against forgers."""


def digest(contents: Iterable[bytes]) -> str:
    """Return the shortened SHA-256 of several contents, and of where each ends."""
    total = hashlib.sha256()
    for content in contents:
        total.update(len(content).to_bytes(8, "big") + content)
    return total.hexdigest()[:LENGTH]


def file_digest(path: Path, before: bytes = b"") -> str:
    """Return the shortened SHA-256 of the bytes `before` and those of a file, read piece by piece.

    OSError where the file can't be read.
    """
    total = hashlib.sha256(before)
    with path.open("rb") as file:
        while content := file.read(2**20):
            total.update(content)
    return total.hexdigest()[:LENGTH]
