"""Tokenising context items: the text that a model is given, the segment of each token, and the answer's tokens."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int32
from torch import Tensor

from decomp.corpus.context_items import ContextItem, Message, Segment, joined_segments
from decomp.corpus.parts import Span
from decomp.corpus.spacing import spaced
from decomp.corpus.tokens import beginning_of_sequence, encode_piece
from decomp.corpus.words import trimmed

MARK = "\ue000context\ue001"
"""A placeholder for a message's text, by which its place in a chat template's output is found.

Its first and last characters are for private use (Unicode), which no chat template removes.
"""
TEMPLATE, OWN = "<template>", "<own>"
"""The names of two sources that are no segments: text between segments, and earlier tokens of the answer."""


@dataclass(frozen=True)
class RenderedContext:
    """The text of a context as the model is given it, with the span of characters of each segment."""

    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class TokenisedContext:
    """The tokens of a context and its answer, with the source that each token belongs to."""

    item: ContextItem
    """The context item."""
    rendered: RenderedContext
    """The text of the context, with the spans of its segments."""
    ids: Int[Tensor, " T"]
    """The token ids of the context and then of the answer."""
    begin: int
    """The index in `ids` of the answer's first token."""
    has_bos: bool
    """Whether the first token is the beginning-of-sequence token."""
    segments: tuple[Segment, ...]
    """The segments that are sources here: those of the item, or parts of them."""
    spans: tuple[Span, ...]
    """The span of characters of each of `segments` in the context's text."""
    labels: Int[Tensor, " T"]
    """The source of each token: the number of its segment, counted from 0.

    Behind the n segments come n for the beginning-of-sequence token, n + 1 for text outside of segments, and n + 2
    for tokens of the answer.
    """
    first_characters: Int32[np.ndarray, " begin"]
    """The character of the text that each context token begins with, white space aside; −1 for an added BOS token."""

    @property
    def targets(self) -> range:
        """Return the positions whose next token is one of the answer's."""
        return range(self.begin - 1, len(self.ids) - 1)

    @property
    def source_order(self) -> list[int]:
        """Return the different values of `labels`, in the order in which they first occur."""
        return list(dict.fromkeys(self.labels.tolist()))


def render_context(item: ContextItem, tokenizer: Any) -> RenderedContext:
    """Return an item's context as the text that the model is given: segments joined, or messages in a chat template.

    ValueError for messages where the tokenizer has no chat template, or one whose output does not show where each
    message stands.
    """
    if item.messages:
        return chat(item, tokenizer)
    return RenderedContext(*joined_segments(item))


def chat(item: ContextItem, tokenizer: Any) -> RenderedContext:
    """Return a chat as the tokenizer's chat template writes it, up to where the assistant's answer begins."""
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError(f"{item.place}: the model's tokenizer has no chat template: give segments instead of messages")
    spans, before = list[Span](), ""
    for number, message in enumerate(item.messages, 1):
        earlier, where = item.messages[: number - 1], f"{item.place}, message {number} ({message.role})"
        text = by_template(tokenizer, [*earlier, message], where)
        marked = by_template(tokenizer, [*earlier, with_mark(message)], where)
        content = content_span(text, marked, message.content)
        if content is None or not text.startswith(before) or content[0] < len(before):
            raise ValueError(
                f"{where}: the model's chat template does not tell where the message stands, since it changes with "
                "its place or its text: give segments instead of messages"
            )
        spans += part_spans(message, text, content)
        before = text
    whole = by_template(tokenizer, item.messages, item.place, add_generation_prompt=True)
    if not whole.startswith(before):
        raise ValueError(
            f"{item.place}: the model's chat template changes messages when an answer follows: give segments instead"
        )
    return RenderedContext(whole, tuple(spans))


def by_template(tokenizer: Any, messages: Sequence[Message], where: str, **options: Any) -> str:
    """Return messages as the tokenizer's chat template writes them. ValueError where the template refuses them."""
    from jinja2 import TemplateError

    given = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text: str = tokenizer.apply_chat_template(given, tokenize=False, **options)
    except (TemplateError, ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{where}: the model's chat template refuses it: {error}") from error
    return text


def with_mark(message: Message) -> Message:
    """Return a message whose text is the placeholder `MARK`."""
    return replace(message, segments=(Segment("", MARK),))


def content_span(text: str, marked: str, content: str) -> Span | None:
    """Return the span of a message's content in `text`, found by `marked`, the same text with `MARK` for the content.

    The template may have removed white space around the content. None where the two texts differ in other ways, too.
    """
    head, mark, tail = marked.partition(MARK)
    start, stop = len(head), len(text) - len(tail)
    inner = text[start:stop]
    known = mark and MARK not in tail and text.startswith(head) and text.endswith(tail) and start <= stop
    return (start, stop) if known and inner in (content, content.strip()) else None


def part_spans(message: Message, text: str, content: Span) -> Iterator[Span]:
    """Yield the span of each segment of a message in `text`, without white space that the template has removed."""
    whole = message.content
    start = content[0] - (0 if text[slice(*content)] == whole else len(whole) - len(whole.lstrip()))
    for segment in message.segments:
        first, last = max(start, content[0]), min(start + len(segment.text), content[1])
        yield first, max(first, last)
        start += len(segment.text) + 1


def tokenise_context(
    item: ContextItem,
    tokenizer: Any,
    config: Any,
    positions: int,
    bos: bool = True,
    write: Callable[[Int[Tensor, " T"]], Int[Tensor, " new"]] | None = None,
) -> TokenisedContext:
    """Return the tokens of an item's context and answer, with the source of each.

    An answer that is not given is made by `write` from the context's tokens. A chat begins as its template has it,
    other texts with the beginning-of-sequence token unless `bos` is false. ValueError for a segment or an answer
    without tokens, and for more tokens than the model has `positions`.
    """
    context, answer = prompt_and_answer(item, tokenizer)
    encoded = encode_piece(context.text, tokenizer, 0)
    own = [] if item.messages or not bos else [beginning_of_sequence(tokenizer, config)]
    prompt = torch.cat([torch.tensor(own, dtype=torch.long), torch.from_numpy(encoded.ids).long()])
    if answer is None:
        assert write is not None
        check_length(item, len(prompt) + 1, positions)
        new_ids = write(prompt).cpu()
    else:
        new_ids = torch.tensor(tokenizer(answer, add_special_tokens=False)["input_ids"], dtype=torch.long)
    if not len(new_ids):
        said = "the model writes no answer: give one" if answer is None else f"the answer {answer!r} has no tokens"
        raise ValueError(f"{item.place}: {said}")
    check_length(item, len(prompt) + len(new_ids), positions)
    begins = {getattr(owner, "bos_token_id", None) for owner in (tokenizer, config)} - {None}
    has_bos = int(prompt[0]) in begins
    first = np.concatenate([np.full(len(own), -1, np.int32), trimmed(context.text, encoded.spans)[:, 0]])
    ids, none = torch.cat([prompt, new_ids]), torch.empty(0)
    whole = TokenisedContext(item, context, ids, len(prompt), has_bos, (), (), none, first)
    return in_segments(whole, item.segments, context.spans)


def prompt_and_answer(item: ContextItem, tokenizer: Any) -> tuple[RenderedContext, str | None]:
    """Return the context's text and the answer's; a space between the two is moved to the front of the answer."""
    context = render_context(item, tokenizer)
    if item.answer is None or item.messages:
        return context, item.answer
    text, answer = spaced(context.text, item.answer)
    return RenderedContext(text, tuple((min(a, len(text)), min(b, len(text))) for a, b in context.spans)), answer


def check_length(item: ContextItem, tokens: int, positions: int) -> None:
    """Raise ValueError for an item with more tokens than the model has positions."""
    if tokens > positions:
        raise ValueError(
            f"{item.place}: context and answer have {tokens} tokens, the model has {positions} positions: shorten them"
        )


def in_segments(context: TokenisedContext, segments: Sequence[Segment], spans: Sequence[Span]) -> TokenisedContext:
    """Return the context with other sources: the given segments, which stand at the given spans of its text.

    A token belongs to the segment that holds its first character, white space aside. ValueError for a segment in
    which no token begins.
    """
    first = context.first_characters
    labels = torch.full((len(context.ids),), len(segments) + 1)
    for number, (start, stop) in enumerate(spans):
        labels[: context.begin][torch.from_numpy((first >= start) & (first < stop))] = number
    labels[: int(context.has_bos)] = len(segments)
    labels[context.begin :] = len(segments) + 2
    for number, segment in enumerate(segments):
        if not (labels == number).any():
            raise ValueError(
                f"{context.item.place}: no token begins in segment {segment.name!r}, {segment.text[:40]!r}: "
                "join it with the one before"
            )
    return replace(context, segments=tuple(segments), spans=tuple(spans), labels=labels)
