"""A summary of a long table, one row per target: surprisal, the strongest source, and the shares of other rows."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from decomp.tables.blocks import Block, Column, Texts, numbers, present, take, take_or_missing
from decomp.tables.provenance import Made
from decomp.tables.reduction import BOS_POSITION, NOTHING_DROPPED, OF_SOURCES, Reduction, first_rows, is_dropped, named

SUMMARY = (
    "strongest_source_position",
    "strongest_source_token",
    "strongest_distance",
    "strongest_score",
    "strongest_share",
    "bos_score",
    "bos_share",
    "bias_score",
    "bias_share",
)
THINNING = ("max_distance", "min_abs", "min_distance", "top")

logger = logging.getLogger(__name__)


def summary_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of the summary, for a long table with these columns."""
    of_target = [name for name in columns if name not in OF_SOURCES]
    return (*("surprisal" if name == "log2_prob" else name for name in of_target), *SUMMARY)


def summarise(blocks: Iterable[Block], keep: Reduction = NOTHING_DROPPED) -> Iterator[Block]:
    """Yield one row per target: surprisal in bits, the strongest source, shares of beginning of sequence and bias.

    The strongest source is one of those that `keep` keeps, and never the beginning-of-sequence token; missing where
    there is none. A share is of the sum of all absolute scores of the target, kept or not.
    """
    for block in blocks:
        yield summary(block, keep)


def summary(block: Block, keep: Reduction) -> Block:
    """Return the summary of one block of whole targets."""
    first = first_rows(block)
    group, count = np.cumsum(first) - 1, int(first.sum())
    score, position = numbers(block["score"]), block["source_position"]
    before = is_dropped(block)
    total = np.bincount(group[~before], np.abs(score[~before]), count)
    is_bos = present(position) & (numbers(position) == BOS_POSITION)
    is_bias = named(block, "<bias>") & ~present(position)
    candidates = (keep.kept(block, group) & present(position) & ~is_bos).nonzero()[0]
    ranked = candidates[np.lexsort((-score[candidates], group[candidates]))]
    strongest = only_first(ranked, group, count)
    found: dict[str, Column] = {
        "surprisal" if name == "log2_prob" else name: 0.0 - numbers(column) if name == "log2_prob" else column
        for name, column in take(block, first).items()
        if name not in OF_SOURCES
    }
    for name in ("source_position", "source_token", "distance", "score"):
        found[f"strongest_{name}"] = take_or_missing(block[name], strongest)
    found["strongest_share"] = share(found["strongest_score"], total)
    for name, rows in (("bos", is_bos), ("bias", is_bias)):
        found[f"{name}_score"] = take_or_missing(block["score"], only_first(rows.nonzero()[0], group, count))
        found[f"{name}_share"] = share(found[f"{name}_score"], total)
    return found


def only_first(
    rows: Int[np.ndarray, " some"], group: Int[np.ndarray, " rows"], count: int
) -> Int[np.ndarray, " targets"]:
    """Return the first of these rows for each target, −1 for a target without any; `group` is each row's target."""
    found = np.full(count, -1)
    found[group[rows[::-1]]] = rows[::-1]
    return found


def share(score: Column, total: Float[np.ndarray, " targets"]) -> Float[np.ndarray, " targets"]:
    """Return the absolute scores as shares of the target's total; missing where there is no score, or no total."""
    assert not isinstance(score, Texts)
    some: Bool[np.ndarray, " targets"] = total != 0
    return np.where(some, np.abs(score.astype(np.float64)) / np.where(some, total, 1), np.nan)


def warn_of_thinned(tables: Sequence[tuple[Path, Made | None]]) -> None:
    """Warn of tables from which rows were left out when they were made: shares are of the remaining rows."""
    for path, made in tables:
        options = {**(made or {}).get("options", {}), **(made or {}).get("table", {})}
        if done := {name: options[name] for name in THINNING if options.get(name)}:
            thinned = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in done.items())
            logger.warning("%s was thinned out before (%s): shares are of the rows that are left", path, thinned)
