"""The table of a complete run: read part by part, or written as one file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from decomp.runs.manifest import open_run
from decomp.runs.outputs import claim
from decomp.runs.parts import blocks_of
from decomp.runs.run import Run
from decomp.tables.blocks import Block
from decomp.tables.columns import COLUMNS, Writer
from decomp.tables.files import TableFile, open_table, table_writer, whole_table
from decomp.tables.provenance import Made


@dataclass(frozen=True)
class RunTable(TableFile):
    """The table of a complete run, one of whose files is open at a time."""

    run: Run
    files: tuple[Path, ...]

    def made(self) -> Made:
        """Return the account of how the run's table is made: the run's request."""
        return self.run.request

    def blocks(self) -> Iterator[Block]:
        """Yield the rows of all files."""
        return blocks_of(self.files)


def table_of(run: Run) -> RunTable:
    """Return the table of a run. ValueError where items are missing, or files are damaged."""
    store = run.table_parts()
    run.refuse_incomplete()
    return RunTable(run.folder, store.table_columns, run, tuple(store.tables(run.folder)))


def open_table_or_run(path: Path) -> TableFile:
    """Return the long table in a file, or that of a run's folder.

    ValueError for what is missing, of no known format, or no long table, and for a run that is not complete.
    """
    if not path.is_dir():
        return open_table(path)
    table = table_of(open_run(path))
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise ValueError(
            f"{path} is a run of decomp {table.run.request['command']}, whose table has no {', '.join(missing)}: "
            f"it can only be written as it is, decomp table {path} -o FILE"
        )
    return table


def table_file_of(path: Path) -> Path:
    """Return the path of a file, or of the one file that holds the table of a run's folder.

    ValueError for a run that is not complete, and for one whose table is in many parts.
    """
    if not path.is_dir():
        return path
    files = table_of(open_run(path)).files
    if len(files) != 1:
        raise ValueError(f"the table of {path} is in {len(files)} parts: write it as one, decomp table {path} -o FILE")
    return files[0]


def other_table(paths: Sequence[Path]) -> RunTable | None:
    """Return the table of a single run where it is not a long table, else None.

    ValueError for a run that is not complete.
    """
    if len(paths) != 1 or not paths[0].is_dir():
        return None
    table = table_of(open_run(paths[0]))
    return None if set(COLUMNS) <= set(table.columns) else table


@contextmanager
def own_table(run: Path, output: Path, format_name: str, columns: Sequence[str], made: Made) -> Iterator[Writer]:
    """Open a file for rows that is complete or absent, and that the run in the folder may replace later."""
    with whole_table(output, format_name, made) as beside:
        with (
            beside.open("w", encoding="utf-8", newline="") as file,
            table_writer(file, format_name, columns, made) as write,
        ):
            yield write
        claim(run, output, beside)
