"""Items of a context in named segments, and an answer: passages, messages of a chat, worked examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decomp.io.records import Record, read_records

FORMS = ("segments", "messages", "examples")
"""Columns of which an item has one: what its context is made of."""

WITHIN = " / "
"""Stands between the names of a segment and of a part of it."""
LEVELS = ("segment", "sentence", "word")
"""From the segments of an item to parts of the strongest, and parts of these."""
ANSWER = "answer"
"""The part of an answer that is all of it; others are `sentence 1` and so on."""


@dataclass(frozen=True)
class Segment:
    """A named part of a context."""

    name: str
    text: str
    ranked: bool = True
    """Whether it is compared with the others; what is asked, or an instruction, need not be."""


@dataclass(frozen=True)
class Message:
    """A turn of a chat, in one segment or several."""

    role: str
    segments: tuple[Segment, ...]

    @property
    def content(self) -> str:
        """Return the text of all segments, a line each."""
        return "\n".join(segment.text for segment in self.segments)


@dataclass(frozen=True)
class ContextItem:
    """A context in segments, or in messages that hold them, and the answer that follows it."""

    place: str
    """`items.jsonl, line 3`."""
    number: int
    """Its row in the table, from 0."""
    name: str
    segments: tuple[Segment, ...]
    between: str = "\n"
    """What stands between two segments."""
    answer: str | None = None
    """None where the model is to write it."""
    messages: tuple[Message, ...] = ()
    """The same segments as turns, where the context is a chat."""
    evidence: str = ""
    """The name of the segment that is known to decide; empty where none is."""


def read_context_items(source: Path | Sequence[Mapping[str, Any]]) -> list[ContextItem]:
    """Return the items of a JSONL file (or another table whose cells hold lists), or of mappings like its lines.

    An item has `segments` (objects with `text`, and if you like `name` and `ranked`), or `messages` (`role`,
    `content`: text or segments), or `examples` (`input`, `output`) with a `question`; an `id`, an `answer`, and the
    name of the segment that is known to decide, `evidence`, where there are such. ValueError, with file and line, for
    an item that is none of these, has a blank text, or two segments of one name.
    """
    items = [context_item(record, number) for number, record in enumerate(records_of(source))]
    names: dict[str, str] = {}
    for item in items:
        if item.name in names:
            raise ValueError(f"{item.place} has the id {item.name!r} of {names[item.name]}: ids must differ")
        names[item.name] = item.place
    return items


def records_of(source: Path | Sequence[Mapping[str, Any]]) -> list[Record]:
    """Return the rows of a file, or mappings as rows. ValueError for what is neither, or has none."""
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
    """Return one row as an item. ValueError, with its place, for a row that is none."""
    forms = [form for form in FORMS if record.values.get(form) is not None]
    if len(forms) > 1:
        raise ValueError(f"{record.place} has {' and '.join(forms)}: give one of them")
    given = record.values[forms[0]]
    if not isinstance(given, Sequence) or isinstance(given, str) or not len(given):
        raise ValueError(f"{record.place}: {forms[0]} must be a list of objects, it is {shown(given)}")
    place = record.place
    name = record.values.get("id")
    messages: tuple[Message, ...] = ()
    if forms[0] == "messages":
        messages = tuple(message_of(each, count, place) for count, each in enumerate(given, 1))
        segments = tuple(segment for message in messages for segment in message.segments)
    elif forms[0] == "examples":
        segments = example_segments(record, given)
    else:
        segments = tuple(segment_of(each, f"segment {count}", place) for count, each in enumerate(given, 1))
    check_names(segments, place)
    evidence = "" if record.values.get("evidence") is None else text_in(record.values, "evidence", place)
    if evidence and evidence not in (names := [segment.name for segment in segments if segment.ranked]):
        raise ValueError(f"{place}: the evidence {evidence!r} is no ranked segment: choose among {', '.join(names)}")
    return ContextItem(
        place,
        number,
        str(number if name is None else name),
        segments,
        "\n\n" if forms[0] == "examples" else "\n",
        None if record.values.get("answer") is None else text_in(record.values, "answer", place),
        messages,
        evidence,
    )


def segment_of(given: Any, name: str, place: str) -> Segment:
    """Return an object of the list `segments`; `name` is for one that has none."""
    values = mapping(given, name, place)
    ranked = values.get("ranked")
    if ranked not in (None, True, False):
        raise ValueError(f"{place}: ranked of {name} must be true or false, it is {shown(ranked)}")
    own = name if values.get("name") is None else text_in(values, "name", place)
    return Segment(own, text_in(values, "text", f"{place}, {own}"), ranked is not False)


def message_of(given: Any, count: int, place: str) -> Message:
    """Return an object of the list `messages`, the `count`-th."""
    values = mapping(given, f"message {count}", place)
    role = text_in(values, "role", f"{place}, message {count}")
    content = values.get("content")
    if isinstance(content, list | tuple) and content:
        parts = enumerate(content, 1)
        return Message(role, tuple(segment_of(part, f"{role} {count}.{number}", place) for number, part in parts))
    own = {"text": content, "name": values.get("name"), "ranked": values.get("ranked")}
    return Message(role, (segment_of(own, f"{role} {count}", place),))


def example_segments(record: Record, examples: Sequence[Any]) -> tuple[Segment, ...]:
    """Return worked examples, an input and output on lines of their own, behind an instruction, before a question."""
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
    """Raise ValueError for two segments of one name, a name that is kept for what is no segment, and none to rank."""
    names = [segment.name for segment in segments]
    if twice := next((name for number, name in enumerate(names) if name in names[:number]), None):
        raise ValueError(f"{place} has two segments {twice!r}: names must differ")
    if kept := next((name for name in names if name.startswith("<")), None):
        raise ValueError(f"{place} has a segment {kept!r}: names begin with no <, which marks what is no segment")
    if not any(segment.ranked for segment in segments):
        raise ValueError(f"{place} has no segment that is ranked: leave out one of the ranked: false")


def mapping(given: Any, what: str, place: str) -> Mapping[str, Any]:
    """Return an object of a list. ValueError where it is none."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{place}: {what} must be an object, it is {shown(given)}")
    return given


def text_in(values: Mapping[str, Any], key: str, place: str) -> str:
    """Return a text of an object. ValueError, with the place, where there is none, or it is blank."""
    value = values.get(key)
    if value is None:
        raise ValueError(f"{place} lacks {key}: it has {', '.join(map(str, values))}")
    if not isinstance(value, str):
        raise ValueError(f"{place}: {key} must be text, it is {shown(value)}")
    if not value.strip():
        raise ValueError(f"{place}: {key} is blank: give some text")
    return value


def shown(value: Any) -> str:
    """Return the beginning of a value, as an error shows it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]} …"
