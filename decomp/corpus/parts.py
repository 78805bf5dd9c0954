"""Dividing a text into sentences, lines, paragraphs or named segments, as spans of characters."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Span = tuple[int, int]
"""A stretch of text: its first character and the one after its last."""
LINE = re.compile(r"[^\n]+")
PARAGRAPH = re.compile(r"\S[^\n]*(?:\n[^\S\n]*\S[^\n]*)*")
"""A paragraph: consecutive lines that are not blank."""


@dataclass(frozen=True)
class Parts:
    """The parts of a text that its input file marks; an empty tuple for a kind that is to be found in the text."""

    sentences: tuple[Span, ...] = ()
    """The spans of sentences."""
    lines: tuple[Span, ...] = ()
    """The spans of lines."""
    paragraphs: tuple[Span, ...] = ()
    """The spans of paragraphs."""
    segments: tuple[Span, ...] = ()
    """The spans of named segments."""
    names: tuple[str, ...] = ()
    """The names of `segments`, one each."""


NO_PARTS = Parts()
"""No parts marked: all kinds are found in the text itself."""


def parts_of_lines(lines: Sequence[str]) -> Parts:
    """Return the parts of the text that joins lines with one space, empty ones left out.

    Where there are several lines, each is a sentence; empty lines separate paragraphs.
    """
    spans: list[Span] = []
    paragraphs: list[Span] = []
    apart = True
    for line in lines:
        if line:
            start = spans[-1][1] + 1 if spans else 0
            spans.append((start, start + len(line)))
            paragraphs.append(spans[-1] if apart else (paragraphs.pop()[0], spans[-1][1]))
        apart = not line
    return Parts(tuple(spans) if len(spans) > 1 else (), tuple(spans), tuple(paragraphs))


def spans_of_kind(kind: str, text: str, parts: Parts) -> list[Span]:
    """Return the spans of one kind of part (`sentence`, `line`, `paragraph`, `segment`): those marked, else found."""
    if kind == "segment":
        return list(parts.segments)
    given = {"sentence": parts.sentences, "line": parts.lines, "paragraph": parts.paragraphs}[kind]
    if given:
        return list(given)
    if kind == "sentence":
        return list(sentences(text))
    return [match.span() for match in (LINE if kind == "line" else PARAGRAPH).finditer(text)]


def sentences(text: str) -> Iterator[Span]:
    """Yield the span of each sentence, as the library syntok finds them; none extends over an empty line."""
    from syntok import segmenter

    for paragraph in segmenter.analyze(text):
        for tokens in paragraph:
            yield tokens[0].offset, tokens[-1].offset + len(tokens[-1].value)
