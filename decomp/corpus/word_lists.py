"""Reading a user's list of words, which says what the words of each article are and what is annotated of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from decomp.corpus.article import Article
from decomp.corpus.conllu import conllu_words
from decomp.corpus.words import match_words
from decomp.io.records import Fields, Record, read_records
from decomp.io.texts import suffix_of

NAMED = ("article", "word")
"""The required columns of a list of words; all other columns are annotations of the words."""
TAKEN = {
    *("window", "position", "token", "source_position", "source_token", "distance", "log2_prob", "measure", "score"),
    *("article_id", "span", "char_start", "char_end", "source_word", "entropy", "corrected_log2_prob", "dropped"),
    *("model", "surprisal", "corrected_surprisal"),
}
"""The names of columns of tables of scores, which a list of words must not have."""
WHOLE = re.compile(r"0|-?[1-9]\d{0,17}")
NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][-+]?\d+)?")


def with_words(path: Path, articles: Sequence[Article], fields: Fields = None) -> list[Article]:
    """Return the articles with the words, and their annotations, that a table lists in reading order.

    The table has the columns `article` (the article's id, or its number, from 0, where it has none) and `word`; its
    other columns become annotations. `fields` gives the table's name of a column where it differs. A CoNLL-U file is
    such a list, too, with the columns of its format. ValueError for an unknown article, for articles of one id, for
    a column that a table of scores has itself, and for words that are not those of the text.
    """
    numbers = {article.id or str(number): number for number, article in enumerate(articles)}
    if len(numbers) < len(articles):
        raise ValueError(f"some articles have the same id, so that {path} can't tell which it means: number them")
    rows: list[list[Mapping[str, Any]]] = [[] for _ in articles]
    for record in word_records(path, fields):
        name = str(record.values["article"])
        if name not in numbers:
            raise ValueError(f"{record.place} has the article {name!r}: the corpus has {', '.join([*numbers][:10])}")
        rows[numbers[name]].append(record.values)
    columns = list(dict.fromkeys(name for own in rows for row in own for name in row if name not in NAMED))
    check_columns(path, columns)
    return [
        annotated(article, own, columns, f"article {article.id or number}")
        for number, (article, own) in enumerate(zip(articles, rows, strict=True))
    ]


def word_records(path: Path, fields: Fields) -> Sequence[Record]:
    """Return the rows of a list of words; those of a CoNLL-U file are its tokens."""
    if suffix_of(path) == ".conllu":
        return list(conllu_words(path))
    return read_records(path, NAMED, fields=fields)


def annotated(article: Article, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], what: str) -> Article:
    """Return an article with the words of these rows, and the values of these columns as annotations.

    ValueError, which names the article as `what`, for one that comes as token ids, and for words that are not its own.
    """
    if article.ids is not None:
        raise ValueError(f"{what} comes as token ids: a list of words needs its text")
    spans = match_words(article.text, [str(row["word"]) for row in rows], what)
    own = {name: tuple(row.get(name) for row in rows) for name in columns}
    return replace(article, words=tuple(spans), annotations=own)


def check_columns(path: Path, columns: Sequence[str]) -> None:
    """Raise ValueError for a column of a list of words that has the name of a column of tables of scores."""
    if taken := [name for name in columns if name in TAKEN]:
        raise ValueError(f"{path} has the column {taken[0]!r}, as the table of scores has: rename it")


def annotation_kinds(articles: Sequence[Article]) -> dict[str, type]:
    """Return the type of each annotation, by the name of its column: `int`, `float` or `str`."""
    columns = dict.fromkeys(name for article in articles for name in article.annotations)
    return {name: kind_of([v for a in articles for v in a.annotations.get(name, ())]) for name in columns}


def kind_of(values: Sequence[Any]) -> type:
    """Return the type that all values can be read as, missing ones aside: `int`, else `float`, else `str`."""
    known = {str(value) for value in values if value not in (None, "")}
    if known and all(WHOLE.fullmatch(text) for text in known):
        return int
    return float if known and all(NUMBER.fullmatch(text) for text in known) else str


def of_kind(value: Any, kind: type) -> Any:
    """Return an annotation converted to the type of its column; None where it is missing."""
    return None if value is None or value == "" else kind(value)
