"""The tables that a run has written: running it again may replace these and nothing else."""

from pathlib import Path

from decomp.io.digests import digest, file_digest
from decomp.io.files import write_whole

FOLDER = "outputs"
"""Folder inside the run's: a file for each table, named by its path, that holds the digest of its content."""


def claim(run: Path, output: Path, content: Path) -> None:
    """Record, before the file `content` is renamed to `output`, that `output` belongs to the run."""
    write_whole(note_of(run, output), file_digest(content).encode())


def is_own(run: Path | None, output: Path | None) -> bool:
    """Return whether `output` is a table that this run wrote and that nobody has changed since."""
    if run is None or output is None or not output.is_file():
        return False
    note = note_of(run, output)
    return note.is_file() and note.read_bytes() == file_digest(output).encode()


def note_of(run: Path, output: Path) -> Path:
    """Return the file in a run's folder that holds the digest of this output."""
    return run / FOLDER / digest([str(output.resolve()).encode()])
