"""Contexts as tokens: the text that a model is given, where each segment stands in it, and the answer's tokens."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int32
from torch import Tensor

from decomp.corpus.context_items import ContextItem, Message, Segment
from decomp.corpus.contrast_items import spaced
from decomp.corpus.tokens import beginning_of_sequence, encode_piece
from decomp.corpus.words import Span, trimmed

MARK = "\ue000context\ue001"
"""Stands for a message's content where its place is looked for: private characters, which no template takes away."""
TEMPLATE, OWN = "<template>", "<own>"
"""Sources that are no segments: what stands between these, and earlier tokens of the answer."""


@dataclass(frozen=True)
class Rendered:
    """A context as one text, with the characters of each segment."""

    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class TokenisedContext:
    """A context and its answer as tokens, with the source of each."""

    item: ContextItem
    rendered: Rendered
    ids: Int[Tensor, " T"]
    begin: int
    """The first token of the answer."""
    has_bos: bool
    segments: tuple[Segment, ...]
    """Those that are sources here: the item's own, or parts of these."""
    spans: tuple[Span, ...]
    """Their characters in the context's text."""
    labels: Int[Tensor, " T"]
    """Per token its segment; then, in this order, what begins the sequence, the template, the answer itself."""
    first_characters: Int32[np.ndarray, " begin"]
    """Per token of the context the character of its text that it begins with, white space aside."""

    @property
    def targets(self) -> range:
        """Return the targets: those that predict the answer's tokens."""
        return range(self.begin - 1, len(self.ids) - 1)

    @property
    def source_order(self) -> list[int]:
        """Return the labels in the order in which they first occur."""
        return list(dict.fromkeys(self.labels.tolist()))


def rendered(item: ContextItem, tokenizer: Any) -> Rendered:
    """Return an item's context as the model is given it.

    ValueError where messages are given and the tokenizer has no chat template, or one that does not tell where each
    message stands.
    """
    if item.messages:
        return chat(item, tokenizer)
    text, spans = "", list[Span]()
    for segment in item.segments:
        start = len(text) + (len(item.between) if text else 0)
        text += (item.between if text else "") + segment.text
        spans.append((start, len(text)))
    return Rendered(text, tuple(spans))


def chat(item: ContextItem, tokenizer: Any) -> Rendered:
    """Return a chat by the tokenizer's template, up to where the assistant's answer begins."""
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
    return Rendered(whole, tuple(spans))


def by_template(tokenizer: Any, messages: Sequence[Message], where: str, **options: Any) -> str:
    """Return messages as the chat template writes them. ValueError for those that it refuses."""
    from jinja2 import TemplateError

    given = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text: str = tokenizer.apply_chat_template(given, tokenize=False, **options)
    except (TemplateError, ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{where}: the model's chat template refuses it: {error}") from error
    return text


def with_mark(message: Message) -> Message:
    """Return a message with the mark for its content."""
    return replace(message, segments=(Segment("", MARK),))


def content_span(text: str, marked: str, content: str) -> Span | None:
    """Return where a message's content stands, from the text with a mark in its place; None where that tells nothing.

    The template may have taken white space from around it.
    """
    head, mark, tail = marked.partition(MARK)
    start, stop = len(head), len(text) - len(tail)
    inner = text[start:stop]
    known = mark and MARK not in tail and text.startswith(head) and text.endswith(tail) and start <= stop
    return (start, stop) if known and inner in (content, content.strip()) else None


def part_spans(message: Message, text: str, content: Span) -> Iterator[Span]:
    """Yield where the segments of a message stand, less the white space that the template took away."""
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
    """Return an item as tokens; the answer, where it has none, by `write` from the context's tokens.

    A chat begins as its template has it, other texts with the beginning-of-sequence token where `bos`. ValueError for
    a segment or an answer without tokens, and for more tokens than the model's `positions`.
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


def prompt_and_answer(item: ContextItem, tokenizer: Any) -> tuple[Rendered, str | None]:
    """Return the context's text, and the answer with the space before it where tokenizers want it."""
    context = rendered(item, tokenizer)
    if item.answer is None or item.messages:
        return context, item.answer
    text, answer = spaced(context.text, item.answer)
    return Rendered(text, tuple((min(a, len(text)), min(b, len(text))) for a, b in context.spans)), answer


def check_length(item: ContextItem, tokens: int, positions: int) -> None:
    """Raise ValueError for an item of more tokens than the model has positions."""
    if tokens > positions:
        raise ValueError(
            f"{item.place}: context and answer have {tokens} tokens, the model has {positions} positions: shorten them"
        )


def in_segments(context: TokenisedContext, segments: Sequence[Segment], spans: Sequence[Span]) -> TokenisedContext:
    """Return a context with these segments as its sources, by the characters of each in its text.

    A token belongs to the segment that its first character stands in, white space aside. ValueError for a segment
    without a token of its own.
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
