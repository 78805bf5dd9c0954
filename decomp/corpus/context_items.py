"""Reading context items: a context in named segments (passages, chat messages, worked examples) and its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from decomp.corpus.parts import Parts, Span
from decomp.corpus.spacing import spaced
from decomp.io.records import Record, read_records

FORMS = ("segments", "messages", "examples")
"""The columns that may hold an item's context; an item has exactly one of them."""

WITHIN = " / "
"""The separator in the name of a part of a segment: `email / sentence 2`."""
LEVELS = ("segment", "sentence", "word")
"""The levels at which sources of a context are scored, from the whole segments to smaller parts of them."""
ANSWER = "answer"
"""The name of the whole answer among its parts; its sentences are called `sentence 1`, `sentence 2` …"""


@dataclass(frozen=True)
class Segment:
    """A named part of a context, which is one source of the answer: a passage, a message, a worked example."""

    name: str
    """The name, which no other segment of the item has."""
    text: str
    """The text."""
    ranked: bool = True
    """Whether the segment takes part in the ranking of sources; a question or an instruction need not."""


@dataclass(frozen=True)
class Message:
    """One turn of a chat, whose text is divided into one or more segments."""

    role: str
    """The role in the chat: `system`, `user`, `assistant` …"""
    segments: tuple[Segment, ...]
    """The segments that the text consists of."""

    @property
    def content(self) -> str:
        """Return the message's text: its segments, joined with line breaks."""
        return "\n".join(segment.text for segment in self.segments)


@dataclass(frozen=True)
class ContextItem:
    """A context divided into segments (of plain text or of chat messages), and the answer that follows it."""

    place: str
    """The file and line of the item, for messages of errors: `items.jsonl, line 3`."""
    number: int
    """The item's row in its table, counted from 0."""
    name: str
    """The item's id, or its number where it has none."""
    segments: tuple[Segment, ...]
    """The segments of the context, in order."""
    between: str = "\n"
    """The text between two neighbouring segments."""
    answer: str | None = None
    """The answer's text; None where the model is to write one."""
    messages: tuple[Message, ...] = ()
    """The turns of a chat, which hold the same segments; empty for plain text."""
    evidence: str = ""
    """The name of the segment that is known to decide the answer; empty where that is not known."""


def read_context_items(source: Path | Sequence[Mapping[str, Any]]) -> list[ContextItem]:
    """Return the context items of a JSON-lines file (or a Parquet table of lists), or of mappings like its lines.

    An item has one of: `segments`, a list of objects with `text` and optionally `name` and `ranked`; `messages`, a list
    of objects with `role` and `content` (a text, or a list of segments); `examples`, a list of objects with `input` and
    `output`, beside a `question` and optionally an `instruction`. It may have an `id`, an `answer`, and `evidence`, the
    name of the segment that is known to decide the answer. ValueError, with file and line, for an item without one of
    these, with a blank text, with two segments of one name, or with the `id` of another item.
    """
    items = [context_item(record, number) for number, record in enumerate(records_of(source))]
    names: dict[str, str] = {}
    for item in items:
        if item.name in names:
            raise ValueError(f"{item.place} has the id {item.name!r} of {names[item.name]}: ids must differ")
        names[item.name] = item.place
    return items


def records_of(source: Path | Sequence[Mapping[str, Any]]) -> list[Record]:
    """Return the rows of a file, or a list of mappings as rows. ValueError for anything else, and for no rows."""
    if isinstance(source, Path):
        return read_records(source, FORMS[:1], *((form,) for form in FORMS[1:]))
    if not isinstance(source, Sequence) or not all(isinstance(values, Mapping) for values in source):
        raise ValueError(f"expected the Path of a file of items, or a list of mappings, not {shown(source)}")
    for number, values in enumerate(source):
        if not any(values.get(form) is not None for form in FORMS):
            raise ValueError(f"item {number} lacks {', '.join(FORMS)}: it has {', '.join(map(str, values))}")
    if not source:
        raise ValueError("there are no items: give at least one")
    return [Record(f"item {number}", values) for number, values in enumerate(source)]


def context_item(record: Record, number: int) -> ContextItem:
    """Return the context item in one row. ValueError, with its file and line, for a malformed one."""
    form, given = context_of(record)
    messages: tuple[Message, ...] = ()
    if form == "messages":
        messages = tuple(message_of(each, count, record.place) for count, each in enumerate(given, 1))
        segments = tuple(segment for message in messages for segment in message.segments)
    elif form == "examples":
        segments = example_segments(record, given)
    else:
        segments = tuple(segment_of(each, f"segment {count}", record.place) for count, each in enumerate(given, 1))
    check_names(segments, record.place)
    name, between = record.values.get("id"), "\n\n" if form == "examples" else "\n"
    name = str(number if name is None else name)
    answer, evidence = optional_text(record, "answer"), evidence_of(record, segments)
    return ContextItem(record.place, number, name, segments, between, answer, messages, evidence)


def context_of(record: Record) -> tuple[str, Sequence[Any]]:
    """Return which of `FORMS` a row's context has, and its list. ValueError for several forms, and for no list."""
    forms = [form for form in FORMS if record.values.get(form) is not None]
    if len(forms) > 1:
        raise ValueError(f"{record.place} has {' and '.join(forms)}: give one of them")
    given = record.values[forms[0]]
    if not isinstance(given, Sequence) or isinstance(given, str) or not len(given):
        raise ValueError(f"{record.place}: {forms[0]} must be a list of objects, it is {shown(given)}")
    return forms[0], given


def joined_segments(item: ContextItem) -> tuple[str, tuple[Span, ...]]:
    """Return the text that an item's segments make together, and the span of characters of each."""
    text, spans = "", list[Span]()
    for segment in item.segments:
        start = len(text) + (len(item.between) if text else 0)
        text += (item.between if text else "") + segment.text
        spans.append((start, len(text)))
    return text, tuple(spans)


def has_segments(values: Mapping[str, Any]) -> bool:
    """Return whether a row holds a context item: a list in a column of one of `FORMS`."""
    return any(isinstance(values.get(form), list | tuple) for form in FORMS)


def text_of_item(record: Record) -> tuple[str, Parts]:
    """Return the text of a context item, its answer after the context if it has one, with its named segments.

    ValueError for a malformed item, and for messages of a chat.
    """
    context, parts = prompt_of_segments(record)
    answer = optional_text(record, "answer")
    if answer is None:
        return context, parts
    context, answer = spaced(context, answer)
    within = tuple((start, min(stop, len(context))) for start, stop in parts.segments)
    return context + answer, replace(parts, segments=within)


def prompt_of_segments(record: Record) -> tuple[str, Parts]:
    """Return the context that a row's segments make, with these as its parts.

    ValueError for a malformed item, and for messages of a chat, which the chat template of a model writes.
    """
    item = context_item(record, 0)
    if item.messages:
        raise ValueError(
            f"{record.place} has messages, which the chat template of a model writes: score them by decomp context, "
            "or give segments"
        )
    text, spans = joined_segments(item)
    return text, Parts(segments=spans, names=tuple(segment.name for segment in item.segments))


def evidence_of(record: Record, segments: Sequence[Segment]) -> str:
    """Return the name of the segment that decides, or an empty text. ValueError for one that is not ranked."""
    evidence = optional_text(record, "evidence") or ""
    names = [segment.name for segment in segments if segment.ranked]
    if evidence and evidence not in names:
        raise ValueError(
            f"{record.place}: the evidence {evidence!r} is no ranked segment: choose among {', '.join(names)}"
        )
    return evidence


def optional_text(record: Record, key: str) -> str | None:
    """Return the text in a column of a row; None where it is missing. ValueError for a blank or other value."""
    return None if record.values.get(key) is None else text_in(record.values, key, record.place)


def segment_of(given: Any, name: str, place: str) -> Segment:
    """Return the segment in one object of the list `segments`; `name` is its name where it gives none."""
    values = mapping(given, name, place)
    ranked = values.get("ranked")
    if ranked not in (None, True, False):
        raise ValueError(f"{place}: ranked of {name} must be true or false, it is {shown(ranked)}")
    own = name if values.get("name") is None else text_in(values, "name", place)
    return Segment(own, text_in(values, "text", f"{place}, {own}"), ranked is not False)


def message_of(given: Any, count: int, place: str) -> Message:
    """Return the message in one object of the list `messages`; `count` is its number in the chat, from 1."""
    values = mapping(given, f"message {count}", place)
    role = text_in(values, "role", f"{place}, message {count}")
    content = values.get("content")
    if isinstance(content, list | tuple) and content:
        parts = enumerate(content, 1)
        return Message(role, tuple(segment_of(part, f"{role} {count}.{number}", place) for number, part in parts))
    own = {"text": content, "name": values.get("name"), "ranked": values.get("ranked")}
    return Message(role, (segment_of(own, f"{role} {count}", place),))


def example_segments(record: Record, examples: Sequence[Any]) -> tuple[Segment, ...]:
    """Return the segments of an item of worked examples: the instruction if any, the examples, the question.

    An example's input and output stand on lines of their own.
    """
    segments = []
    if record.values.get("instruction") is not None:
        segments.append(Segment("instruction", text_in(record.values, "instruction", record.place), ranked=False))
    for count, given in enumerate(examples, 1):
        place = f"{record.place}, example {count}"
        values = mapping(given, f"example {count}", record.place)
        texts = (text_in(values, column, place) for column in ("input", "output"))
        name = f"example {count}" if values.get("name") is None else text_in(values, "name", place)
        segments.append(Segment(name, "\n".join(texts)))
    return (*segments, Segment("question", text_in(record.values, "question", record.place) + "\n", ranked=False))


def check_names(segments: Sequence[Segment], place: str) -> None:
    """Raise ValueError for two segments of one name, a name that begins with `<`, and where no segment is ranked."""
    names = [segment.name for segment in segments]
    if twice := next((name for number, name in enumerate(names) if name in names[:number]), None):
        raise ValueError(f"{place} has two segments {twice!r}: names must differ")
    if kept := next((name for name in names if name.startswith("<")), None):
        raise ValueError(f"{place} has a segment {kept!r}: names begin with no <, which marks what is no segment")
    if not any(segment.ranked for segment in segments):
        raise ValueError(f"{place} has no segment that is ranked: leave out one of the ranked: false")


def mapping(given: Any, what: str, place: str) -> Mapping[str, Any]:
    """Return a value that must be a mapping (an object of JSON). ValueError for any other value."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{place}: {what} must be an object, it is {shown(given)}")
    return given


def text_in(values: Mapping[str, Any], key: str, place: str) -> str:
    """Return the text under a key of an object. ValueError, with the place, for a missing, blank or other value."""
    value = values.get(key)
    if value is None:
        raise ValueError(f"{place} lacks {key}: it has {', '.join(map(str, values))}")
    if not isinstance(value, str):
        raise ValueError(f"{place}: {key} must be text, it is {shown(value)}")
    if not value.strip():
        raise ValueError(f"{place}: {key} is blank: give some text")
    return value


def shown(value: Any) -> str:
    """Return the beginning of a value's `repr`, for the message of an error."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]} …"
