"""The long table that every measure writes: one row per predicted token, source and measure."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from decomp.corpus.cutting import Window
from decomp.tables.blocks import Block, Column, Row, constant, rows_of, shortest_decimals, take, texts_of, without

if TYPE_CHECKING:
    from torch import Tensor

    from decomp.measures.result import Scores

COLUMNS = (
    "article",
    "window",
    "position",
    "token",
    "source_position",
    "source_token",
    "distance",
    "log2_prob",
    "measure",
    "score",
)
Writer = Callable[[Iterable[Row] | Block], None]
"""A function that writes rows, or a block of them."""


def in_precision(values: "Tensor") -> "Tensor":
    """Return numbers of double precision as they are, all others in single precision."""
    return values if values.is_floating_point() and values.element_size() == 8 else values.float()


def significant(values: "Tensor") -> list[float]:
    """Return numbers as the shortest decimals that are read back as the same numbers."""
    return shortest_decimals(array(values))


SOURCE_LENGTH = "source_length"
"""The column of tables whose sources are groups of tokens: the number of tokens in each group."""


def refuse_groups(columns: Sequence[str], what: str) -> None:
    """Raise ValueError for a table whose sources are groups of tokens; `what` says what needs single tokens."""
    if SOURCE_LENGTH in columns:
        raise ValueError(f"{what}, the table's sources are groups of tokens: score it without --sources")


@dataclass(frozen=True)
class Groups:
    """The sources of a window where these are groups of tokens, as columns of a table."""

    first: Int[np.ndarray, " S"]
    """Index of the token (or word) of the window that each group begins with."""
    texts: Sequence[str]
    lengths: Int[np.ndarray, " S"]
    """The number of tokens in each group."""


def scores_block(
    result: "Scores",
    window: Window,
    tokens: Sequence[str],
    target_facts: Block | None = None,
    source_facts: Block | None = None,
    groups: Groups | None = None,
) -> dict[str, Column]:
    """Return the table rows of one window, by predicted token; for each its sources, then the rows that are not tokens.

    `target_facts` and `source_facts` are columns put before the others, with a value for each token of the window:
    what is known of the predicted token, and of the source. `groups` are the sources, where they are not the tokens.
    """
    sources = groups or single_tokens(tokens)
    targets, count = np.arange(result.targets.start, result.targets.stop), len(sources.texts)
    row, source = np.nonzero(kept_pairs(result, targets, count))
    predicted, is_extra = targets[row] + 1, source >= count
    of_source = sources.first[np.where(is_extra, 0, source)]
    lengths = sources.lengths[np.where(is_extra, 0, source)].astype(np.int32)
    positions = np.array([window.position(index) for index in range(len(tokens))], np.int32)
    return {
        **take(target_facts or {}, predicted),
        **{name: without(column[of_source], is_extra) for name, column in (source_facts or {}).items()},
        **({} if groups is None else {SOURCE_LENGTH: without(lengths, is_extra)}),
        "article": constant(window.article, len(row)),
        "window": constant(window.number, len(row)),
        "position": positions[predicted],
        "token": texts_of(tokens)[predicted],
        "source_position": without(positions[of_source], is_extra),
        "source_token": texts_of([*sources.texts, *result.extra])[source],
        "distance": without((predicted - of_source).astype(np.int32), is_extra),
        "log2_prob": array(result.log2_prob)[targets][row],
        "measure": constant(result.measure, len(row)),
        "score": all_scores(result, targets, count)[row, source],
    }


def single_tokens(tokens: Sequence[str]) -> Groups:
    """Return the tokens of a window as sources, one each; the last predicts nothing in it."""
    return Groups(np.arange(len(tokens) - 1), tokens[:-1], np.ones(len(tokens) - 1, np.int32))


def kept_pairs(
    result: "Scores", targets: Int[np.ndarray, " targets"], sources: int
) -> Bool[np.ndarray, "targets sources"]:
    """Return which (target, source) pairs have rows; the last sources stand for the rows that are not tokens."""
    begun, source = targets + 1 if result.begun is None else np.array(result.begun)[targets], np.arange(sources)
    kept = (source < begun[:, None]) & (source >= begun[:, None] - result.decomposition_length)
    if result.carried is not None:
        kept &= np.isin(source, result.carried)
    return np.column_stack([kept, np.ones((len(targets), len(result.extra)), bool)])


def all_scores(
    result: "Scores", targets: Int[np.ndarray, " targets"], sources: int
) -> Float[np.ndarray, "targets sources"]:
    """Return the scores of all sources, then those of the rows that are not tokens, for each target."""
    extra = [array(values)[targets] for values in result.extra.values()]
    return np.column_stack([array(result.scores)[targets, :sources], *extra])


def array(values: "Tensor") -> Shaped[np.ndarray, "..."]:
    """Return a tensor as an array on the CPU, in double precision if it is, else in single precision."""
    return in_precision(values).detach().cpu().numpy()


@dataclass(frozen=True)
class LineFeeds:
    """A file for `csv` that ends rows with a line feed.

    The writer itself ends rows with carriage return and line feed, so that it quotes texts with either.
    """

    file: TextIO

    def write(self, row: str) -> None:
        """Write a row, which ends with carriage return and line feed, with a line feed alone."""
        self.file.write(row[:-2] + "\n")


def write_delimited(file: TextIO, delimiter: str, columns: Sequence[str]) -> Writer:
    """Write the header of a delimited table, and return the function that writes rows."""
    writer = csv.writer(LineFeeds(file), delimiter=delimiter)
    writer.writerow(columns)
    return lambda table: writer.writerows(as_rows(table))


def write_jsonl(file: TextIO, columns: Sequence[str] = COLUMNS) -> Writer:
    """Return the function that writes rows as JSON objects, one a line."""

    def write(table: Iterable[Row] | Block) -> None:
        rows = as_rows(table)
        file.writelines(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)

    return write


def as_rows(table: Iterable[Row] | Block) -> Iterable[Row]:
    """Return rows as they are, a block as rows."""
    return rows_of(table) if isinstance(table, Mapping) else table


class Format(Protocol):
    """A format of text tables."""

    def __call__(self, file: TextIO, columns: Sequence[str] = COLUMNS) -> Writer:
        """Write the header to a file, and return the function that writes rows to it."""


FORMATS: dict[str, Format] = {
    "tsv": lambda file, columns=COLUMNS: write_delimited(file, "\t", columns),
    "csv": lambda file, columns=COLUMNS: write_delimited(file, ",", columns),
    "jsonl": write_jsonl,
}
"""The formats of text tables, by name.

A command whose rows have more columns names these in front: `(*more, *COLUMNS)`.
"""
