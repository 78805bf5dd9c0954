"""Grouping the tokens of a window into sources: single tokens, words, sentences, lines, paragraphs, segments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from decomp.corpus.contrast_items import TokenisedItem
from decomp.corpus.parts import Span, spans_of_kind
from decomp.corpus.windows import TokenisedWindow, Unit
from decomp.corpus.words import spans_of, trimmed, whitespace_words

Sources = str | Sequence[int] | Int[Tensor, " T"]
"""A kind of sources, a name in `SOURCE_KINDS`, or a number for each token: tokens of one number are one source."""
OTHERWISE = "<continuation>"
"""The name of the source that holds all tokens after the last named segment: an answer, or what the model wrote."""
HOLE = " … "
"""The sign, in the text of a source, for tokens in between that belong to other sources."""


@dataclass(frozen=True)
class SourceLabels:
    """The source that each token of a text belongs to, as a number, and the sources' names if they have any."""

    labels: Int[Tensor, " T"]
    names: dict[int, str] | None = None
    """The names of sources, by their numbers; None where no source has one."""


def check_fit(sources: Sources | None, windows: Sequence[TokenisedWindow]) -> None:
    """Raise ValueError for labels of sources that are not those of the tokens of a single window."""
    if isinstance(sources, str) or sources is None:
        return
    if len(windows) != 1:
        raise ValueError(
            f"labels are for the tokens of one window, the text has {len(windows)}: name a kind of sources"
        )
    if len(sources) != (count := len(windows[0].ids)):
        raise ValueError(
            f"sources must have a label for each of the {count} tokens (with the beginning-of-sequence token, where "
            f"the text has one), not {len(sources)}"
        )


def source_labels(window: TokenisedWindow, sources: Sources | None, unit: Unit = "token") -> SourceLabels | None:
    """Return the source of each token of a window; None where the sources are the same `unit` as what is predicted."""
    if sources is None or (isinstance(sources, str) and sources == unit):
        return None
    if not isinstance(sources, str):
        return SourceLabels(torch.as_tensor(sources)[: len(window.ids)])
    if sources == "token":
        return SourceLabels(torch.arange(len(window.ids)))
    if sources == "word":
        return SourceLabels(window.word_of_tokens())
    labels = part_of_tokens(window, sources)
    return SourceLabels(labels, names_of(window) if sources == "segment" else None)


def part_of_tokens(window: TokenisedWindow, kind: str) -> Int[Tensor, " T"]:
    """Return the number of the article's part that each token begins in; −1 for the beginning-of-sequence token."""
    starts = [-1 if span.char_start is None else span.char_start for span in window.text_spans]
    return owners(starts, spans_of_kind(kind, window.article.text, window.article.parts), kind == "segment")


def owners(starts: Sequence[int], parts: Sequence[Span], rest_apart: bool = False) -> Int[Tensor, " T"]:
    """Return the number of the part that each character belongs to; −1 for a character −1.

    A character between two parts belongs to the later one, a character after the last part to the last, or with
    `rest_apart` to a part of its own, numbered behind the last.
    """
    spans, at = spans_of(parts), np.array(starts)
    number = np.searchsorted(spans[:, 1], at, side="right")
    last = len(spans) if rest_apart else max(0, len(spans) - 1)
    return torch.from_numpy(np.where(at < 0, -1, np.minimum(number, last)))


def prompt_labels(item: TokenisedItem, sources: Sources) -> SourceLabels:
    """Return the source of each token of a contrast item's prompt, as a number, and the names of segments.

    ValueError for numbers that are not one for each token, and for segments of a prompt that has none.
    """
    if not isinstance(sources, str):
        if len(sources) != len(item.prompt):
            raise ValueError(
                f"{item.item.place}: sources must have a label for each of the prompt's {len(item.prompt)} tokens "
                f"(with the beginning-of-sequence token, where there is one), not {len(sources)}"
            )
        return SourceLabels(torch.as_tensor(sources))
    if sources == "token":
        return SourceLabels(torch.arange(len(item.prompt)))
    text, given = item.item.prompt, item.item.parts
    if sources == "segment" and not given.segments:
        raise ValueError(
            f'{item.item.place} has no named segments: give items with "segments" in place of the prompt, or take '
            "word, sentence, line or paragraph as sources"
        )
    parts = whitespace_words(text).tolist() if sources == "word" else spans_of_kind(sources, text, given)
    labels = owners([*[-1] * item.has_bos, *trimmed_starts(item)], parts)
    return SourceLabels(labels, dict(enumerate(given.names)) if sources == "segment" else None)


def trimmed_starts(item: TokenisedItem) -> list[int]:
    """Return the first character of each prompt token, white space aside; no beginning-of-sequence token."""
    first = trimmed(item.item.prompt, spans_of(item.text_spans))[:, 0]
    starts: list[int] = first.tolist()
    return starts


def names_of(window: TokenisedWindow) -> dict[int, str]:
    """Return the name of each segment of a window's article by its number, −1 for the beginning-of-sequence token."""
    names = window.article.parts.names
    return {-1: window.tokens[0], **dict(enumerate((*names, OTHERWISE)))}


def source_text(window: TokenisedWindow, tokens: Sequence[int]) -> str:
    """Return the text of a source, given its tokens in a window; tokens of other sources are shown as `HOLE`."""
    spans = [window.text_spans[token] for token in tokens]
    if any(span.char_start is None for span in spans):
        return "".join(window.tokens[token] for token in tokens)
    return text_of_tokens(window.article.text, [(span.char_start, span.char_end) for span in spans], tokens)


def text_of_tokens(text: str, spans: Sequence[tuple[Any, Any]], tokens: Sequence[int]) -> str:
    """Return the text of some tokens in one line, with `HOLE` where other tokens stand between them.

    `spans` are the spans of characters of the `tokens` in `text`.
    """
    pieces: list[list[Any]] = []
    for token, (start, end) in zip(tokens, spans, strict=True):
        if pieces and token == pieces[-1][2] + 1:
            pieces[-1][1:] = end, token
        else:
            pieces.append([start, end, token])
    return HOLE.join(" ".join(text[start:end].split()) for start, end, _ in pieces)
