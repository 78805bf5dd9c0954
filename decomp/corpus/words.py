"""Finding the words of a text as spans of characters, and the word that each token is of."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32

from decomp.corpus.article import Article
from decomp.corpus.parts import Span

WHITE = np.array([chr(code).isspace() for code in range(2**16)])
"""For each code point below 2¹⁶ whether it is white space; no code point above is."""


def spans_of(spans: Sequence[Span]) -> Int32[np.ndarray, "n 2"]:
    """Return spans as a compact array of integers, a row each."""
    return np.array(spans, np.int32).reshape(-1, 2)


def visible_characters(text: str) -> Int[np.ndarray, " n"]:
    """Return the indices of the characters of a text that are not white space."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return np.flatnonzero(~WHITE[np.minimum(codes, len(WHITE) - 1)])


def whitespace_words(text: str) -> Int32[np.ndarray, "words 2"]:
    """Return the spans of the words of a text that white space separates."""
    ink = visible_characters(text)
    if not len(ink):
        return spans_of([])
    apart = np.flatnonzero(np.diff(ink) > 1)
    first, last = ink[np.append(0, apart + 1)], ink[np.append(apart, len(ink) - 1)]
    return np.column_stack([first, last + 1]).astype(np.int32)


def match_words(text: str, words: Sequence[str], what: str) -> list[Span]:
    """Return the span of each of the given words, which together must be the whole text, white space aside.

    ValueError at the first word that is not what the text has there; it names the article as `what`.
    """
    places = visible_characters(text).tolist()
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


def trimmed(text: str, spans: Int32[np.ndarray, "n 2"]) -> Int32[np.ndarray, "n 2"]:
    """Return spans without white space at their beginning and end; a span of white space alone stays as it is."""
    ink = visible_characters(text)
    first, after = (np.searchsorted(ink, side) for side in spans.T)
    some = first < after
    result = spans.copy()
    result[some] = np.column_stack([ink[first[some]], ink[after[some] - 1] + 1])
    return result


def words_of_tokens(
    text: str, tokens: Int32[np.ndarray, "A 2"], words: Int32[np.ndarray, "words 2"], what: str
) -> Int32[np.ndarray, " A"]:
    """Return the index of the word that each token begins in; both are given as spans of characters in `text`.

    A token of white space alone belongs to the next word, or to the last one. ValueError, which names the article as
    `what`, for a word in which no token begins, since it could have no score of its own.
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
    """Raise ValueError for articles whose given words are not exactly those that white space separates."""
    for number, article in enumerate(articles):
        for (start, stop), expected in zip(article.words or (), whitespace_words(article.text).tolist(), strict=False):
            if [start, stop] != expected:
                raise ValueError(
                    f"article {article.id or number} has the word {article.text[start:stop]!r} where white space "
                    f"sets {article.text[slice(*expected)]!r} apart: the correction is for words between white space"
                )
