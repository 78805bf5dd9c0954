"""Sentences, lines, paragraphs and named segments of an article: which characters are of which. Imports no torch."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Span = tuple[int, int]
"""First character and the one after the last."""
LINE = re.compile(r"[^\n]+")
PARAGRAPH = re.compile(r"\S[^\n]*(?:\n[^\S\n]*\S[^\n]*)*")
"""Lines without an empty one between them."""


@dataclass(frozen=True)
class Parts:
    """What an input says of the parts of a text, where the text does not say it itself."""

    sentences: tuple[Span, ...] = ()
    lines: tuple[Span, ...] = ()
    paragraphs: tuple[Span, ...] = ()
    segments: tuple[Span, ...] = ()
    names: tuple[str, ...] = ()
    """Of the segments."""


NO_PARTS = Parts()
"""What a text says for itself."""


def parts_of_lines(lines: Sequence[str]) -> Parts:
    """Return where lines stand in the text that joins them with one space, empty ones left out.

    Several lines are a sentence each, and paragraphs where empty ones set them apart.
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
    """Return the characters of each `sentence`, `line`, `paragraph` or `segment`: as the input says, or by the text."""
    if kind == "segment":
        return list(parts.segments)
    given = {"sentence": parts.sentences, "line": parts.lines, "paragraph": parts.paragraphs}[kind]
    if given:
        return list(given)
    if kind == "sentence":
        return list(sentences(text))
    return [match.span() for match in (LINE if kind == "line" else PARAGRAPH).finditer(text)]


def sentences(text: str) -> Iterator[Span]:
    """Yield the characters of each sentence, as syntok finds them; none goes beyond an empty line."""
    from syntok import segmenter

    for paragraph in segmenter.analyze(text):
        for tokens in paragraph:
            yield tokens[0].offset, tokens[-1].offset + len(tokens[-1].value)
