"""The rows of one article of a long table, each with the places in the text of its target and its source."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from decomp.report.contexts import is_context
from decomp.report.groups import ELSEWHERE, Indices, behind_targets, has_groups
from decomp.report.readable import words_of
from decomp.tables.blocks import present
from decomp.tables.table import Table


@dataclass(frozen=True, eq=False)
class ArticleRows:
    """The rows of one article; a place is an index of `positions`."""

    table: Table
    positions: Int[np.ndarray, " places"]
    """The position in the article of each place, in reading order; −1 for the beginning-of-sequence token."""
    is_source: Bool[np.ndarray, " rows"]
    """Whether a row is of a source; the others (`<bias>`) are not tokens."""
    place: Int[np.ndarray, " rows"]
    """The place that is predicted."""
    source: Int[np.ndarray, " rows"]
    """The place of the source, or where it begins."""
    measure: Int[np.ndarray, " rows"]
    """The number of the measure."""
    measures: int
    """The number of all measures."""

    @cached_property
    def targets(self) -> Int[np.ndarray, " targets"]:
        """Return the places that are predicted, in reading order."""
        return np.unique(self.place)

    @cached_property
    def target(self) -> Int[np.ndarray, " rows"]:
        """Return the number of each row's target."""
        return np.searchsorted(self.targets, self.place)

    @cached_property
    def first(self) -> Int[np.ndarray, " targets"]:
        """Return the first row of each target."""
        return np.unique(self.place, return_index=True)[1]

    @property
    def bos(self) -> int:
        """Return how many places (1 or 0) the beginning-of-sequence token has."""
        return int(self.positions[0] == -1)

    @property
    def labels(self) -> dict[int, str]:
        """Return the texts of sources by the places where they begin."""
        return dict(zip(self.source[self.is_source].tolist(), self.table["source_token"][self.is_source], strict=True))


def in_groups(table: Table) -> bool:
    """Return whether sources are groups of tokens of the text itself, and not the segments of a context."""
    return has_groups(table) and not is_context(table)


def locate_rows(table: Table, measures: Sequence[str]) -> ArticleRows:
    """Return the rows of an article's table with their places; `measures` are all that are shown."""
    is_source = present(table.column("source_position"))
    position = np.asarray(table["position"])
    source_position = np.where(is_source, np.ma.filled(table["source_position"], 0), position)
    behind = behind_targets(position, source_position) if in_groups(table) else position[:0]
    positions = np.unique(np.concatenate([position, source_position, behind]))
    place, source = np.searchsorted(positions, position), np.searchsorted(positions, source_position)
    measure = np.array([measures.index(name) for name in table["measure"]])
    return ArticleRows(table, positions, is_source, place, source, measure, len(measures))


def scores_of(rows: ArticleRows, name: str) -> tuple[Indices, Indices, Float[np.ndarray, "measures pairs"]]:
    """Return the pairs that any measure scores, target by target: first pair of each target, sources, scores.

    ValueError, which names the article by `name`, where a measure has two scores of one pair.
    """
    measure, target, source = (each[rows.is_source] for each in (rows.measure, rows.target, rows.source))
    width = int(source.max(initial=0)) + 1
    keys, pair = np.unique(target * width + source, return_inverse=True)
    if len(np.unique(measure * max(1, len(keys)) + pair)) < len(pair):
        raise ValueError(
            f"the table has two scores of one source for a predicted token of {name}: it holds rows of "
            "several models or options; report each by itself"
        )
    scores = np.full((rows.measures, len(keys)), np.nan)
    scores[measure, pair] = np.asarray(rows.table["score"])[rows.is_source]
    starts = np.searchsorted(keys // width, np.arange(len(rows.targets) + 1))
    return starts, keys % width, scores


def extra_of(rows: ArticleRows) -> dict[str, Float[np.ndarray, "measures targets"]]:
    """Return the scores of the rows that are not tokens, by their name."""
    names, found = rows.table["source_token"], {}
    for name in dict.fromkeys(names[~rows.is_source]):
        own = ~rows.is_source & (names == name)
        found[name] = np.full((rows.measures, len(rows.targets)), np.nan)
        found[name][rows.measure[own], rows.target[own]] = np.asarray(rows.table["score"])[own]
    return found


def tokens_of(rows: ArticleRows) -> list[str]:
    """Return the token at each place."""
    tokens = np.full(len(rows.positions), ELSEWHERE.strip(), dtype=object)
    tokens[rows.source[rows.is_source]] = rows.table["source_token"][rows.is_source]
    tokens[rows.place] = rows.table["token"]
    return list(tokens)


def word_numbers(rows: ArticleRows, pieces: Sequence[str]) -> Int[np.ndarray, " places"]:
    """Return the number of the word at each place; −1 for the beginning of sequence.

    Numbers are those of the table, or where it has none, counted by white space.
    """
    table, own = rows.table, np.array([-1] * rows.bos + words_of(pieces[rows.bos :]))
    if "word" not in table.columns or "source_word" not in table.columns:
        return own
    known = np.full(len(pieces), -2)
    has_word = rows.is_source & present(table.column("source_word"))
    known[rows.source[has_word]] = np.ma.filled(table["source_word"], -2)[has_word]
    has_word = present(table.column("word"))
    known[rows.place[has_word]] = np.ma.filled(table["word"], -2)[has_word]
    return own if (known == -2).any() else known
