"""Long tables as texts that can be shown: places, the predicted ones among them, and the scores of their sources."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from decomp.report.article_rows import (
    ArticleRows,
    extra_of,
    in_groups,
    locate_rows,
    scores_of,
    tokens_of,
    word_numbers,
)
from decomp.report.contexts import finest, is_context, segment_labels
from decomp.report.groups import Indices, blocks_of, has_groups, names_of, stops_of, with_groups
from decomp.report.readable import one_line, pieces_of, sentences_of, spelling_of, visible
from decomp.tables.table import Table

MOST_PLACES = 20_000
"""The most tokens that can be shown at once."""


@dataclass(frozen=True)
class ShownText:
    """One text: its places in reading order, and its (target, source) pairs, target by target."""

    name: str
    pieces: Sequence[str]
    positions: Int[np.ndarray, " places"]
    """Positions in the article; −1 for the beginning-of-sequence token."""
    words: Int[np.ndarray, " places"]
    sentences: Int[np.ndarray, " places"]
    targets: Int[np.ndarray, " targets"]
    """Indices of the places that are predicted."""
    log2_prob: Float[np.ndarray, " targets"]
    entropy: Float[np.ndarray, " targets"] | None
    starts: Int[np.ndarray, " targets+1"]
    """The index of the first pair of each target, then the number of pairs."""
    sources: Int[np.ndarray, " pairs"]
    scores: Float[np.ndarray, "measures pairs"]
    """Scores of the pairs; NaN where a measure has none."""
    extra: Mapping[str, Float[np.ndarray, "measures targets"]]
    """Scores of the rows that are not tokens, by their name (`<bias>`)."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts about a contrast item: target, foil, log2 odds. NaN and None are left out."""
    evidence: Sequence[int] = ()
    """Places of the tokens that are known to decide."""
    predictions: Sequence[Sequence[tuple[str, float]]] = ()
    """The likeliest tokens at each target with their probabilities, where these are known."""
    completeness_gap: float | None = None
    segments: Mapping[int, str] = field(default_factory=dict)
    """Labels of segments, by the place that each begins at."""
    stops: Int[np.ndarray, " places"] | None = None
    """The place behind the source that begins at each place; None where sources are single tokens."""
    blocks: Sequence[int] = ()
    """Places at which such sources begin a block of text."""

    def stop(self, source: int) -> int:
        """Return the place behind the source that begins at a place."""
        return source + 1 if self.stops is None else int(self.stops[source])

    def end(self, source: int) -> int:
        """Return the position of the last token of the source that begins at a place."""
        stop = self.stop(source)
        alone = self.stops is None or stop == len(self.positions)
        return int(self.positions[source if alone else stop] - (not alone))

    def source(self, source: int) -> str:
        """Return a source as a label: its name where it has one, else its text, on one line."""
        if self.stops is None:
            return one_line(self.pieces[source])
        return one_line(self.segments.get(source, "".join(self.pieces[source : self.stop(source)])))


def texts_of(table: Table) -> list[ShownText]:
    """Return the texts of a long table, an article or item each.

    ValueError for a table without rows, with two scores of one source, or with more tokens than can be shown.
    """
    if not len(table):
        raise ValueError("the table has no rows: there is nothing to show")
    check_size(table)
    table, spelling = (finest(table), "plain") if is_context(table) else (table, spelling_of_table(table))
    return [text_of(part, table.measures(), spelling) for part in by_article(table)]


def check_size(table: Table) -> None:
    """Raise ValueError for a table with more predicted tokens than can be shown."""
    keys = np.unique(np.stack([table["article"], table["position"]]), axis=1)
    if keys.shape[1] > MOST_PLACES:
        raise ValueError(
            f"the table has {keys.shape[1]:,} predicted tokens in {len(np.unique(keys[0])):,} articles, of which "
            f"{MOST_PLACES:,} can be shown: choose some with --article (table.select(article=0))"
        )


def spelling_of_table(table: Table) -> str:
    """Return the spelling of a table's tokens: plain for words, else as the tokens themselves show."""
    options = table.about.get("options")
    if isinstance(options, Mapping) and options.get("unit") == "word":
        return "plain"
    columns = ("token",) if has_groups(table) else ("token", "source_token")
    return spelling_of([text for name in columns for text in texts_in(table, name)])


def texts_in(table: Table, name: str) -> Sequence[str]:
    """Return the distinct texts of a column."""
    column = table.column(name)
    return column.texts if not isinstance(column, np.ndarray) else ()


def by_article(table: Table) -> Iterator[Table]:
    """Yield the rows of each article."""
    articles = np.asarray(table["article"])
    order = np.argsort(articles, kind="stable")
    borders = np.flatnonzero(np.diff(articles[order])) + 1
    for rows in np.split(order, borders):
        yield Table({name: column[rows] for name, column in table.data.items()}, table.about)


def text_of(table: Table, measures: Sequence[str], spelling: str) -> ShownText:
    """Return the text that the rows of one article describe."""
    rows = locate_rows(table, measures)
    stops = stops_of(table, rows.is_source, rows.positions) if in_groups(table) else None
    pieces = pieces_of_rows(rows, spelling, stops)
    words = word_numbers(rows, pieces)
    starts, sources, scores = scores_of(rows, name_of(table))
    sentences = sentences_of(pieces[rows.bos :], words[rows.bos :].tolist())
    return ShownText(
        name=name_of(table),
        pieces=[visible(piece) for piece in pieces],
        positions=rows.positions,
        words=words,
        sentences=np.array([-1] * rows.bos + sentences),
        targets=rows.targets,
        log2_prob=np.asarray(table["log2_prob"])[rows.first],
        entropy=np.asarray(table["entropy"])[rows.first] if "entropy" in table.columns else None,
        starts=starts,
        sources=sources,
        scores=scores,
        extra=extra_of(rows),
        facts=facts_of(table),
        segments=segments_of(rows, pieces, stops),
        stops=stops,
        blocks=[] if stops is None else blocks_of(sources, stops, rows.positions, pieces),
    )


def pieces_of_rows(rows: ArticleRows, spelling: str, stops: Indices | None) -> list[str]:
    """Return the piece of running text at each place; `stops` are those of sources that are groups of tokens."""
    tokens = tokens_of(rows)
    pieces = [*tokens[: rows.bos], *pieces_of(tokens[rows.bos :], spelling)]
    return pieces if stops is None else with_groups(pieces, rows.labels, rows.positions, stops, rows.targets)


def segments_of(rows: ArticleRows, pieces: Sequence[str], stops: Indices | None) -> dict[int, str]:
    """Return the labels of segments, and of groups that are called other than their text, by their first places."""
    if is_context(rows.table):
        return segment_labels(rows.table, rows.positions)
    named = {} if stops is None else names_of(rows.labels, pieces, stops)
    return {place: visible(name) for place, name in named.items()}


def name_of(table: Table) -> str:
    """Return the name of the article or item that rows belong to."""
    for column in ("item", "article_id"):
        if column in table.columns and table[column][0] is not None:
            return f"{'item ' if column == 'item' else ''}{table[column][0]}"
    return f"article {table['article'][0]}"


def facts_of(table: Table) -> dict[str, Any]:
    """Return the facts that the rows of a contrast item give about it; empty for other texts."""
    if "foil" not in table.columns:
        return {}
    spelling = spelling_of_table(table)
    phrase = {name: "".join(pieces_of([table[name][0]], spelling)).strip() for name in ("token", "foil")}
    return {
        "phenomenon": table["phenomenon"][0],
        "target": visible(phrase["token"]),
        "foil": visible(phrase["foil"]),
        "log2_odds": float(table["log2_odds"][0]),
    }
