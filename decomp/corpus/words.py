"""Words: where they stand in an article, and which tokens they are of."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int32

from decomp.corpus.articles import Article
from decomp.io.records import Fields, Record, read_records
from decomp.io.texts import suffix_of

Span = tuple[int, int]
"""First character and the one after the last."""
NAMED = ("article", "word")
"""Columns of a list of words; what others say of the words is carried along."""
TAKEN = {
    *("window", "position", "token", "source_position", "source_token", "distance", "log2_prob", "measure", "score"),
    *("article_id", "span", "char_start", "char_end", "source_word", "entropy", "corrected_log2_prob", "dropped"),
    *("model", "surprisal", "corrected_surprisal"),
}
"""Columns of tables of scores."""
WHOLE = re.compile(r"0|-?[1-9]\d{0,17}")
NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][-+]?\d+)?")


WHITE = np.array([chr(code).isspace() for code in range(2**16)])
"""Whether each code point is white space; none is beyond these."""


def spans_of(spans: Sequence[Span]) -> Int32[np.ndarray, "n 2"]:
    """Return spans as an array: a long text has millions."""
    return np.array(spans, np.int32).reshape(-1, 2)


def inked(text: str) -> Int[np.ndarray, " n"]:
    """Return the characters of a text that are no white space."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return np.flatnonzero(~WHITE[np.minimum(codes, len(WHITE) - 1)])


def whitespace_words(text: str) -> Int32[np.ndarray, "words 2"]:
    """Return the characters of the runs of what is no white space."""
    ink = inked(text)
    if not len(ink):
        return spans_of([])
    apart = np.flatnonzero(np.diff(ink) > 1)
    first, last = ink[np.append(0, apart + 1)], ink[np.append(apart, len(ink) - 1)]
    return np.column_stack([first, last + 1]).astype(np.int32)


def match_words(text: str, words: Sequence[str], what: str) -> list[Span]:
    """Return where the given words stand, which must be the text's characters in order, white space aside.

    ValueError, with both sides, at the first mismatch; `what` names the article.
    """
    places = inked(text).tolist()
    spans, done = [], 0
    for number, word in enumerate(words):
        characters = "".join(word.split())
        if not characters:
            raise ValueError(f"word {number} of {what} in the word list is empty: leave it out")
        own = places[done : done + len(characters)]
        if "".join(text[index] for index in own) != characters:
            start = own[0] if own else len(text)
            came = repr(text[start : start + len(word) + 20]) if own else "its end"
            raise ValueError(f"word {number} of {what} is {word!r} in the word list, at character {start} comes {came}")
        spans.append((own[0], own[-1] + 1))
        done += len(characters)
    if done < len(places):
        rest = text[places[done] :][:40]
        raise ValueError(f"the word list ends after {len(words)} words of {what}, where {rest!r} follows")
    return spans


def with_words(path: Path, articles: Sequence[Article], fields: Fields = None) -> list[Article]:
    """Return the articles with the words of a table with the columns `article` and `word`, in reading order.

    `article` is the article's id, or its number (from 0) where it has none. What other columns say of a word is
    carried along; a CoNLL-U file's columns are those of the format. `fields`: see `read_records`. ValueError for an
    unknown article, one without words, and words that are not the text's.
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
    """Return the rows of a list of words, or the tokens of a CoNLL-U file."""
    if suffix_of(path) == ".conllu":
        from decomp.corpus.conllu import conllu_words

        return list(conllu_words(path))
    return read_records(path, NAMED, fields=fields)


def annotated(article: Article, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], what: str) -> Article:
    """Return an article with the words of these rows, and what the columns say of them."""
    if article.ids is not None:
        raise ValueError(f"{what} comes as token ids: a list of words needs its text")
    spans = match_words(article.text, [str(row["word"]) for row in rows], what)
    own = {name: tuple(row.get(name) for row in rows) for name in columns}
    return replace(article, words=tuple(spans), annotations=own)


def check_columns(path: Path, columns: Sequence[str]) -> None:
    """Raise ValueError for a column of a list of words whose name the table has for something else."""
    if taken := [name for name in columns if name in TAKEN]:
        raise ValueError(f"{path} has the column {taken[0]!r}, as the table of scores has: rename it")


def annotation_kinds(articles: Sequence[Article]) -> dict[str, type]:
    """Return what the values of each column of words are: whole numbers, numbers, or text."""
    columns = dict.fromkeys(name for article in articles for name in article.annotations)
    return {name: kind_of([v for a in articles for v in a.annotations.get(name, ())]) for name in columns}


def kind_of(values: Sequence[Any]) -> type:
    """Return `int` or `float` where all values are such numbers (or missing), else `str`."""
    known = {str(value) for value in values if value not in (None, "")}
    if known and all(WHOLE.fullmatch(text) for text in known):
        return int
    return float if known and all(NUMBER.fullmatch(text) for text in known) else str


def of_kind(value: Any, kind: type) -> Any:
    """Return an annotation as the kind of its column, None where there is none."""
    return None if value is None or value == "" else kind(value)


def trimmed(text: str, spans: Int32[np.ndarray, "n 2"]) -> Int32[np.ndarray, "n 2"]:
    """Return spans less the white space that they begin or end with, unless they are all white space."""
    ink = inked(text)
    first, after = (np.searchsorted(ink, side) for side in spans.T)
    some = first < after
    result = spans.copy()
    result[some] = np.column_stack([ink[first[some]], ink[after[some] - 1] + 1])
    return result


def words_of_tokens(
    text: str, tokens: Int32[np.ndarray, "A 2"], words: Int32[np.ndarray, "words 2"], what: str
) -> Int32[np.ndarray, " A"]:
    """Return the word that each token (less its white space) begins in.

    White space belongs to the next word, at the end to the last. ValueError where no token begins in a word,
    which then has no score of its own; `what` names the article.
    """
    owners = np.minimum(np.searchsorted(words[:, 1], tokens[:, 0], side="right"), len(words) - 1).astype(np.int32)
    around = np.concatenate([[-1], owners, [len(words)]]) if len(tokens) else np.array([])
    skipped = np.flatnonzero(np.diff(around) > 1)
    if len(skipped):
        word = int(around[skipped[0]]) + 1
        raise ValueError(
            f"no token begins in word {word} of {what}, {text[slice(*words[word].tolist())]!r}: "
            "the tokenizer joins it with the word before; join them in the word list"
        )
    return owners


def check_white_space(articles: Sequence[Article]) -> None:
    """Raise a ValueError for two given words without white space between them, or one with some inside."""
    for number, article in enumerate(articles):
        for (start, stop), expected in zip(article.words or (), whitespace_words(article.text).tolist(), strict=False):
            if [start, stop] != expected:
                raise ValueError(
                    f"article {article.id or number} has the word {article.text[start:stop]!r} where white space "
                    f"sets {article.text[slice(*expected)]!r} apart: the correction is for words between white space"
                )
