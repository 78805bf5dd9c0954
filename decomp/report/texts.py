"""Long tables as texts that can be shown: places, the predicted ones among them, and the scores of their sources."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from decomp.report.contexts import finest, is_context, segment_labels
from decomp.report.groups import (
    ELSEWHERE,
    Indices,
    behind_targets,
    blocks_of,
    has_groups,
    names_of,
    stops_of,
    with_groups,
)
from decomp.report.readable import one_line, pieces_of, sentences_of, spelling_of, visible, words_of
from decomp.tables.blocks import present
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
    is_source = present(table.column("source_position"))
    position = np.asarray(table["position"])
    source_position = np.where(is_source, np.ma.filled(table["source_position"], 0), position)
    grouped = has_groups(table) and not is_context(table)
    behind = behind_targets(position, source_position) if grouped else position[:0]
    positions = np.unique(np.concatenate([position, source_position, behind]))
    place, source = np.searchsorted(positions, position), np.searchsorted(positions, source_position)
    targets, target = np.unique(place, return_inverse=True)
    measure = np.array([measures.index(name) for name in table["measure"]])
    starts, sources, scores = scores_of(table, is_source, measure, target, source, len(measures), len(targets))
    first = np.zeros(len(targets), dtype=np.int64)
    first[target[::-1]] = np.arange(len(table))[::-1]
    tokens = tokens_of(table, len(positions), place, source, is_source)
    bos = int(positions[0] == -1)
    stops = stops_of(table, is_source, positions) if grouped else None
    pieces = [*tokens[:bos], *pieces_of(tokens[bos:], spelling)]
    if stops is not None:
        labels = dict(zip(source[is_source].tolist(), table["source_token"][is_source], strict=True))
        pieces = with_groups(pieces, labels, positions, stops, targets)
    words = word_numbers(table, pieces, bos, place, source, is_source)
    segments = segment_labels(table, positions) if is_context(table) else {}
    if stops is not None:
        segments = {place: visible(name) for place, name in names_of(labels, pieces, stops).items()}
    return ShownText(
        name=name_of(table),
        pieces=[visible(piece) for piece in pieces],
        positions=positions,
        words=words,
        sentences=np.array([-1] * bos + sentences_of(pieces[bos:], words[bos:].tolist())),
        targets=targets,
        log2_prob=np.asarray(table["log2_prob"])[first],
        entropy=np.asarray(table["entropy"])[first] if "entropy" in table.columns else None,
        starts=starts,
        sources=sources,
        scores=scores,
        extra=extra_of(table, ~is_source, measure, target, len(measures), len(targets)),
        facts=facts_of(table),
        segments=segments,
        stops=stops,
        blocks=[] if stops is None else blocks_of(sources, stops, positions, pieces),
    )


def scores_of(
    table: Table,
    is_source: Bool[np.ndarray, " rows"],
    measure: Int[np.ndarray, " rows"],
    target: Int[np.ndarray, " rows"],
    source: Int[np.ndarray, " rows"],
    measures: int,
    targets: int,
) -> tuple[Indices, Indices, Float[np.ndarray, "measures pairs"]]:
    """Return the pairs that any measure scores, target by target: first pair of each target, sources, scores.

    ValueError where a measure has two scores of one pair.
    """
    measure, target, source = measure[is_source], target[is_source], source[is_source]
    width = int(source.max(initial=0)) + 1
    keys, pair = np.unique(target * width + source, return_inverse=True)
    if len(np.unique(measure * max(1, len(keys)) + pair)) < len(pair):
        raise ValueError(
            f"the table has two scores of one source for a predicted token of {name_of(table)}: it holds rows of "
            "several models or options; report each by itself"
        )
    scores = np.full((measures, len(keys)), np.nan)
    scores[measure, pair] = np.asarray(table["score"])[is_source]
    starts = np.searchsorted(keys // width, np.arange(targets + 1))
    return starts, keys % width, scores


def extra_of(
    table: Table,
    is_extra: Bool[np.ndarray, " rows"],
    measure: Int[np.ndarray, " rows"],
    target: Int[np.ndarray, " rows"],
    measures: int,
    targets: int,
) -> dict[str, Float[np.ndarray, "measures targets"]]:
    """Return the scores of the rows that are not tokens, by their name."""
    names = table["source_token"]
    found = {}
    for name in dict.fromkeys(names[is_extra]):
        rows = is_extra & (names == name)
        found[name] = np.full((measures, targets), np.nan)
        found[name][measure[rows], target[rows]] = np.asarray(table["score"])[rows]
    return found


def tokens_of(
    table: Table, places: int, place: Indices, source: Indices, is_source: Bool[np.ndarray, " rows"]
) -> list[str]:
    """Return the token at each place."""
    tokens = np.full(places, ELSEWHERE.strip(), dtype=object)
    tokens[source[is_source]] = table["source_token"][is_source]
    tokens[place] = table["token"]
    return list(tokens)


def word_numbers(
    table: Table,
    pieces: Sequence[str],
    bos: int,
    place: Indices,
    source: Indices,
    is_source: Bool[np.ndarray, " rows"],
) -> Int[np.ndarray, " places"]:
    """Return the number of the word at each place; −1 for the beginning of sequence.

    Numbers are those of the table, or where it has none, counted by white space.
    """
    own = np.array([-1] * bos + words_of(pieces[bos:]))
    if "word" not in table.columns or "source_word" not in table.columns:
        return own
    known = np.full(len(pieces), -2)
    has_word = is_source & present(table.column("source_word"))
    known[source[has_word]] = np.ma.filled(table["source_word"], -2)[has_word]
    has_word = present(table.column("word"))
    known[place[has_word]] = np.ma.filled(table["word"], -2)[has_word]
    return own if (known == -2).any() else known


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
