"""The table of a complete run: read part by part, or written as one file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from decomp.runs.manifest import open_run
from decomp.runs.outputs import claim
from decomp.runs.run import Run
from decomp.tables.columns import Row
from decomp.tables.files import TableFile, open_table, table_writer, whole_table
from decomp.tables.provenance import Made


@dataclass(frozen=True)
class RunTable(TableFile):
    """The table of a complete run, one of whose parts is open at a time."""

    run: Run
    parts: tuple[Path, ...]

    def made(self) -> Made:
        """Return how the run's table is made: what was asked of the run."""
        return self.run.request

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all parts, their numbers as numbers. ValueError as for a table."""
        for part in self.parts:
            yield from TableFile(part, self.columns).rows()


def table_of(run: Run) -> RunTable:
    """Return the table of a run. ValueError where windows are missing, or parts are damaged."""
    parts, store = run.parts(), run.table_parts()
    for windows, path in parts:
        store.read(windows, path)
    paths = tuple(path for _, path in parts if path.stat().st_size)
    return RunTable(run.folder, open_table(paths[0]).columns, run, paths)


def open_table_or_run(path: Path) -> TableFile:
    """Return the table in a file, or that of a run's folder.

    ValueError for what is missing, of no known format, or no long table, and for a run that is not complete.
    """
    return table_of(open_run(path)) if path.is_dir() else open_table(path)


def write_table(run: Run, output: Path, format_name: str) -> None:
    """Write the table of a complete run to a file, which it may replace when it is run again.

    ValueError where windows are missing, or parts are damaged; then the file is left as it was.
    """
    with whole_table(output, format_name, run.request) as beside:
        if format_name == "parquet":
            table = table_of(run)
            with (
                beside.open("w", encoding="utf-8") as text,
                table_writer(text, format_name, table.columns, run.request) as write,
            ):
                write(table.rows())
        else:
            with beside.open("wb") as file:
                run.write_table(file)
        claim(run.folder, output, beside)
