"""The progress of a run, from its parts and its journals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from decomp.runs.run import Run, Shard, parse_shard
from decomp.runs.work import journal_entries

RECENT = 600
"""Seconds of work over which the rate is averaged; longer where three of the longest parts take longer."""


@dataclass(frozen=True)
class Amount:
    """An amount of work, done or to do."""

    items: int
    targets: int
    pairs: int
    cost: int


def amount(run: Run, items: Iterable[int]) -> Amount:
    """Return the amount of work of some items of a run, given by their numbers."""
    chosen = [run.items[number] for number in items]
    return Amount(
        len(chosen), sum(w.targets for w in chosen), sum(w.pairs for w in chosen), sum(w.cost for w in chosen)
    )


@dataclass(frozen=True)
class Share:
    """The progress of one shard."""

    shard: Shard
    total: Amount
    done: Amount
    last: float
    """The time of the shard's last entry in the journals, in seconds since 1970."""


@dataclass(frozen=True)
class Status:
    """The progress of a run: what is done and left, how fast it goes, and which items failed."""

    total: Amount
    done: Amount
    pairs_per_second: float | None
    seconds_left: float | None
    failed: dict[range, str]
    """Items that are still to be done, and why the last attempt failed."""
    shares: list[Share]


def status_of(run: Run) -> Status:
    """Return the progress of a run, read from its parts and its journals."""
    done, entries = run.done(), journal_entries(run)
    total, finished = amount(run, range(len(run.items))), amount(run, done)
    pairs_per_second, cost_per_second = rates(run, [e for e in entries if "first" in e and e["error"] is None])
    left = None if cost_per_second is None else (total.cost - finished.cost) / cost_per_second
    return Status(total, finished, pairs_per_second, left, failures(done, entries), shares(run, done, entries))


def failures(done: set[int], entries: Sequence[dict[str, Any]]) -> dict[range, str]:
    """Return the items whose last attempt failed and that are not done since, with their errors, in order."""
    failed = {range(e["first"], e["stop"]): e["error"] for e in entries if e.get("error") is not None}
    return {items: failed[items] for items in sorted(failed, key=min) if not done.issuperset(items)}


def rates(run: Run, parts: Sequence[dict[str, Any]]) -> tuple[float | None, float | None]:
    """Return pairs and operations per second of the recent time in which any process worked; None before any part."""
    if not parts:
        return None, None
    lately = max(e["time"] for e in parts) - max(RECENT, 3 * max(e["seconds"] for e in parts))
    recent = [e for e in parts if e["time"] >= lately]
    busy = length_of_union([(e["time"] - e["seconds"], e["time"]) for e in recent])
    worked = amount(run, (number for e in recent for number in range(e["first"], e["stop"])))
    return worked.pairs / busy, worked.cost / busy


def length_of_union(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, reached = 1e-9, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def shares(run: Run, done: set[int], entries: Sequence[dict[str, Any]]) -> list[Share]:
    """Return the progress of each shard that a process has begun."""
    last = {entry["shard"]: entry["time"] for entry in entries}
    found = []
    for shard in sorted((parse_shard(text) for text in last), key=lambda shard: (shard.count, shard.index)):
        own = [number for batch in run.share(shard) for number in batch]
        found.append(Share(shard, amount(run, own), amount(run, done.intersection(own)), last[str(shard)]))
    return found
