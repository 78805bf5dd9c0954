"""Words: where they stand in an article, and which tokens they are of."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from decomp.corpus.articles import Article
from decomp.io.records import read_records

Span = tuple[int, int]
"""First character and the one after the last."""


def whitespace_words(text: str) -> list[Span]:
    """The runs of what is no white space."""
    return [match.span() for match in re.finditer(r"\S+", text)]


def match_words(text: str, words: Sequence[str], what: str) -> list[Span]:
    """Where the given words stand, which must be the text's characters in order, white space aside.

    ValueError, with both sides, at the first mismatch; `what` names the article.
    """
    places = [index for index, character in enumerate(text) if not character.isspace()]
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


def read_words(path: Path, articles: Sequence[Article]) -> list[list[Span]]:
    """Per article the places of its words, from a table with the columns `article` and `word` in reading order.

    `article` is the article's id, or its number (from 0) where it has none. ValueError for an unknown
    article, one without words, or words that are not the text's.
    """
    numbers = {article.id or str(number): number for number, article in enumerate(articles)}
    if len(numbers) < len(articles):
        raise ValueError(f"some articles have the same id, so that {path} can't tell which it means: number them")
    words: list[list[str]] = [[] for _ in articles]
    for record in read_records(path, ("article", "word")):
        name = str(record.values["article"])
        if name not in numbers:
            raise ValueError(f"{record.place} has the article {name!r}: the corpus has {', '.join([*numbers][:10])}")
        words[numbers[name]].append(str(record.values["word"]))
    return [
        match_words(article.text, own, f"article {article.id or number}")
        for number, (article, own) in enumerate(zip(articles, words, strict=True))
    ]


def without_white_space(text: str, span: Span) -> Span:
    """A token's span less the white space that it begins or ends with, unless it is all white space."""
    start, stop = span
    part = text[start:stop]
    if not part.strip():
        return span
    return start + len(part) - len(part.lstrip()), stop - len(part) + len(part.rstrip())


def words_of_tokens(text: str, tokens: Sequence[Span], words: Sequence[Span], what: str) -> list[int]:
    """The word that each token (less its white space) begins in. White space belongs to the next word, at the end
    to the last.

    ValueError where no token begins in a word, which then has no score of its own.
    """
    stops = [stop for _, stop in words]
    owners = [min(bisect_right(stops, start), len(words) - 1) for start, _ in tokens]
    for before, after in pairwise([-1, *owners, len(words)] if tokens else []):
        if after > before + 1:
            start, stop = words[before + 1]
            raise ValueError(
                f"no token begins in word {before + 1} of {what}, {text[start:stop]!r}: "
                "the tokenizer joins it with the word before; join them in the word list"
            )
    return owners


def check_white_space(articles: Sequence[Article], words: Sequence[Sequence[Span]]) -> None:
    """ValueError for two words without white space between them, or one with some inside."""
    for number, (article, own) in enumerate(zip(articles, words, strict=True)):
        for span, expected in zip(own, whitespace_words(article.text), strict=False):
            if span != expected:
                raise ValueError(
                    f"article {article.id or number} has the word {article.text[slice(*span)]!r} where white space "
                    f"sets {article.text[slice(*expected)]!r} apart: the correction is for words between white space"
                )
