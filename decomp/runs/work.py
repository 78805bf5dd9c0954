"""Working through a run: the result of each piece of it, and a journal of how long pieces took and which failed."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decomp.io.files import CannotWriteError
from decomp.runs.run import Batch, Run, Shard, parse_shard

if TYPE_CHECKING:
    from decomp.tables.blocks import Block


@dataclass(frozen=True)
class Outcome:
    """The result of computing consecutive items: the rows of their part, or the error that stopped them."""

    items: range
    pieces: "list[Block]"
    """The rows of the part, one block for each batch; empty after an error."""
    error: str | None
    seconds: float
    host: str
    pid: int


def outcomes(unit: Sequence[Batch], compute: "Callable[[Batch], Block]") -> Iterator[Outcome]:
    """Compute the batches of one unit and yield its outcomes.

    All batches are one outcome, unless one fails or an interruption comes: those before it are then an outcome apart.
    """
    first, pieces, began = unit[0].start, list["Block"](), time.monotonic()

    def outcome(items: range, error: BaseException | None = None) -> Outcome:
        nonlocal began
        since, began = began, time.monotonic()
        done, reason = (list(pieces), None) if error is None else ([], describe(error))
        return Outcome(items, done, reason, began - since, host(), os.getpid())

    for batch in unit:
        try:
            pieces.append(compute(batch))
        except CannotWriteError:
            raise
        except (Exception, KeyboardInterrupt) as error:
            if pieces:
                yield outcome(range(first, batch.start))
            if isinstance(error, KeyboardInterrupt):
                raise
            yield outcome(batch, error)
            first = batch.stop
            pieces.clear()
    if pieces:
        yield outcome(range(first, unit[-1].stop))


def describe(error: BaseException) -> str:
    """Return an error as text: the message of a ValueError, anything else with its type."""
    message = " ".join(str(error).split())
    return message if type(error) is ValueError else f"{type(error).__name__}: {message}"


def host() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


@dataclass(frozen=True)
class Journal:
    """One process's account of a run, for people to read: a JSON object a line."""

    path: Path
    shard: Shard

    def add(self, **entry: Any) -> None:
        """Add a line to the journal. CannotWriteError, a ValueError, where there is no room."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"time": time.time(), "shard": str(self.shard), **entry}) + "\n")
        except OSError as error:
            raise CannotWriteError(f"can't write {self.path}: {error.strerror}") from error


def journal_of(run: Run, shard: Shard, **about: Any) -> Journal:
    """Return the journal of this process, begun with a line on its host and `about`."""
    journal = Journal(run.folder / "journal" / f"{host()}-{os.getpid()}.jsonl", shard)
    journal.add(host=host(), pid=os.getpid(), **about)
    return journal


def keep(run: Run, outcome: Outcome, journal: Journal) -> None:
    """Write the part of an outcome, unless it failed, then its entry in the journal."""
    if outcome.error is None:
        run.store.write(run.folder, outcome.items, outcome.pieces)
    account = {name: getattr(outcome, name) for name in ("error", "seconds", "host", "pid")}
    journal.add(first=outcome.items.start, stop=outcome.items.stop, **account)


def journal_entries(run: Run) -> list[dict[str, Any]]:
    """Return the entries of all processes, by time; lines that are cut off or malformed are skipped."""
    entries = []
    for path in (run.folder / "journal").glob("*.jsonl"):
        if path.is_file():
            for line in path.read_text("utf-8", errors="replace").splitlines():
                with suppress(ValueError, RecursionError):
                    entries.append(json.loads(line))
    return sorted((e for e in entries if is_entry(run, e)), key=lambda entry: entry["time"])


def is_entry(run: Run, entry: Any) -> bool:
    """Return whether a line of a journal is an entry: with a time and a shard, and for a part with its items."""
    if not isinstance(entry, dict) or not isinstance(entry.get("time"), int | float):
        return False
    try:
        parse_shard(entry["shard"])
        return "first" not in entry or (
            0 <= entry["first"] < entry["stop"] <= len(run.items)
            and isinstance(entry["seconds"], int | float)
            and isinstance(entry["error"], str | None)
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return False
