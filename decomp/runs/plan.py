"""The rows, disk, memory and time that a large job will take, estimated from one window that is computed."""

import io
import math
import resource
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from decomp.io.amounts import format_bytes
from decomp.tables.blocks import Block, length
from decomp.tables.columns import FORMATS
from decomp.tables.parquet import parquet_writer
from decomp.tables.work import WorkItem

LARGE = 50 * 10**9
"""Bytes of a table above which a warning is given."""
SHARD_SECONDS = 3600
"""Seconds that one shard should take, about."""
MOST_SHARDS = 1000
SPARE = 1.5
"""Factor on the measured memory and time, since the nodes of a cluster are not this machine."""


@dataclass(frozen=True)
class Sample:
    """The measured cost of one window of a job."""

    window: WorkItem
    seconds: float
    rows: int
    disk: dict[str, int]
    """Bytes of the window's rows, by file format."""
    memory: int
    """The most bytes that the process has held, the model included."""


@dataclass(frozen=True)
class Plan:
    """The estimated cost of a job."""

    windows: int
    tokens: int
    """The number of predicted tokens."""
    rows: int | None
    """The number of rows of the table; None for a job that makes no table."""
    disk: dict[str, int]
    memory: int
    seconds: float

    @property
    def shards(self) -> int:
        """Return the number of shards of about an hour each."""
        return max(1, min(math.ceil(self.seconds / SHARD_SECONDS), self.windows, MOST_SHARDS))

    def lines(self) -> Iterator[str]:
        """Yield the lines that tell a person what the job takes."""
        rows = "" if self.rows is None else f", about {self.rows:,} rows"
        yield f"{self.windows:,} windows, {self.tokens:,} predicted tokens{rows}"
        yield "disk    " + ", ".join(f"{name} {format_bytes(size)}" for name, size in self.disk.items())
        yield f"memory  {format_bytes(self.memory)} at most, in each process"
        yield f"time    {duration(self.seconds)} in one process like this one, by one window of the longest"

    def warning(self, format_name: str) -> str | None:
        """Return a warning of results that are too large to be of use, None for smaller ones."""
        size = self.disk[format_name]
        if size <= LARGE:
            return None
        if self.rows is None:
            return (
                f"the {format_name} files will take {format_bytes(size)}: use a shorter decomposition length, "
                "--store-dtype float16, or decomp score, which stores no contributions"
            )
        return (
            f"the {format_name} table will take {format_bytes(size)}: reduce it while it is written (--top, --min-abs, "
            "--max-distance, --digits), or write Parquet"
        )

    def sbatch(self, command: Sequence[str]) -> str:
        """Return a script for Slurm that runs the command, one shard for each task of an array."""
        minutes = math.ceil(SPARE * self.seconds / self.shards / 60) + 5
        memory = max(1, math.ceil(SPARE * self.memory / 2**30))
        shard = "" if self.shards == 1 else f' --shard "$SLURM_ARRAY_TASK_ID/{self.shards}"'
        return "\n".join(
            [
                "#!/bin/bash",
                f"#SBATCH --array=1-{self.shards}",
                "#SBATCH --cpus-per-task=1",
                f"#SBATCH --mem={memory}G",
                f"#SBATCH --time={minutes // 60}:{minutes % 60:02}:00",
                "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK",
                f"{shlex.join(command)}{shard}",
            ]
        )


def sample(window: WorkItem, compute: Callable[[], Block]) -> Sample:
    """Compute one window and return its cost."""
    began = time.perf_counter()
    block = compute()
    seconds = time.perf_counter() - began
    disk = {"parquet": parquet_size(block)} | {name: text_size(block, name) for name in FORMATS} if block else {}
    return Sample(window, seconds, length(block), disk, most_memory())


def plan(windows: Sequence[WorkItem], one: Sample, targets: Callable[[WorkItem], int]) -> Plan:
    """Return the cost of a table of all windows, estimated from one of them.

    `targets` counts the (target, source) pairs of a window that are written if all sources are kept.
    """
    ratio = sum(map(targets, windows)) / max(1, targets(one.window))
    disk = {name: round(size * ratio) for name, size in one.disk.items()}
    return plan_of_files(windows, one, disk, round(one.rows * ratio))


def plan_of_files(windows: Sequence[WorkItem], one: Sample, disk: dict[str, int], rows: int | None = None) -> Plan:
    """Return the cost of all windows, estimated from one of them and from their known size on disk, bytes by format."""
    cost = sum(window.cost for window in windows) / max(1, one.window.cost)
    tokens = sum(window.targets for window in windows)
    return Plan(len(windows), tokens, rows, disk, one.memory, one.seconds * cost)


def longest(windows: Sequence[WorkItem]) -> int:
    """Return the index of the window with the largest cost."""
    return max(range(len(windows)), key=lambda number: windows[number].cost)


def written_pairs(window: WorkItem, decomposition_length: int | None) -> int:
    """Return the number of (target, source) pairs of a window's targets, which are the last of its tokens."""
    first = window.tokens - 1 - window.targets
    kept = decomposition_length or window.tokens
    return sum(min(target + 1, kept) for target in range(first, window.tokens - 1))


def parquet_size(block: Block) -> int:
    """Return the number of bytes of rows as Parquet."""
    file = io.BytesIO()
    with parquet_writer(file, list(block), None) as write:
        write(block)
    return file.tell()


def text_size(block: Block, format_name: str) -> int:
    """Return the number of bytes of rows as text."""
    file = io.StringIO(newline="")
    FORMATS[format_name](file, list(block))(block)
    return len(file.getvalue().encode())


def most_memory() -> int:
    """Return the most bytes of memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def duration(seconds: float) -> str:
    """Return a time as `3:02:01`, or as `2:01` below an hour."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
