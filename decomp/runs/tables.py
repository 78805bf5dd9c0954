"""The table of a complete run: read part by part, or written as one file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from decomp.runs.manifest import open_run
from decomp.runs.outputs import claim
from decomp.runs.parts import blocks_of
from decomp.runs.run import Run
from decomp.tables.blocks import Block
from decomp.tables.files import TableFile, open_table, table_writer, whole_table
from decomp.tables.provenance import Made


@dataclass(frozen=True)
class RunTable(TableFile):
    """The table of a complete run, one of whose parts is open at a time."""

    run: Run
    parts: tuple[tuple[range, Path], ...]

    def made(self) -> Made:
        """Return how the run's table is made: what was asked of the run."""
        return self.run.request

    def blocks(self) -> Iterator[Block]:
        """Yield the rows of all parts."""
        return blocks_of(self.parts)


def table_of(run: Run) -> RunTable:
    """Return the table of a run. ValueError where windows are missing, or parts are damaged."""
    parts, store = run.parts(), run.table_parts()
    for windows, path in parts:
        store.check_part(windows, path)
    return RunTable(run.folder, store.columns, run, tuple(parts))


def open_table_or_run(path: Path) -> TableFile:
    """Return the table in a file, or that of a run's folder.

    ValueError for what is missing, of no known format, or no long table, and for a run that is not complete.
    """
    return table_of(open_run(path)) if path.is_dir() else open_table(path)


def write_table(run: Run, output: Path, format_name: str) -> None:
    """Write the table of a complete run to a file, which it may replace when it is run again.

    ValueError where windows are missing, or parts are damaged; then the file is left as it was.
    """
    table = table_of(run)
    with whole_table(output, format_name, run.request) as beside:
        with (
            beside.open("w", encoding="utf-8", newline="") as file,
            table_writer(file, format_name, table.columns, run.request) as write,
        ):
            for block in table.blocks():
                write(block)
        claim(run.folder, output, beside)
