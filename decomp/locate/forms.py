"""The forms of facts, items and prompt pairs, checked without a tokenizer, and so before a model is loaded."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from decomp.io.records import Fields, Record, parse_json, renamed, text_of
from decomp.io.texts import read_text
from decomp.locate.limits import check_once
from decomp.locate.sources import read_sources

FACT = ("subject", "target_true", "target_false")
"""The columns of a fact, beside its relation or prompt."""
FORMS = (("pre_text", "post_text"), FACT, ("prompt", "target"))
"""The columns of each form of items: an edit, a fact, a prompt with its target (and perhaps a foil)."""
MASK_FIELD = "mask"
"""The column of an edit that says where it is cut: a level, or the part of `post_text` to cut out."""


def string_of(record: Record, column: str) -> str:
    """Return the text in a column of an item, which may be blank. ValueError, with the place, for another value."""
    value = record.values[column]
    if not isinstance(value, str):
        raise ValueError(f"{record.place}: {column} must be text, it is {value!r}")
    return value


def template_of(record: Record) -> str:
    """Return the template of an item, in its column `relation` or `prompt`. ValueError where neither has one."""
    candidates = [value for name in ("relation", "prompt") if isinstance(value := record.values.get(name), str)]
    for template in candidates:
        if template.count("{}") == 1:
            return template
    raise ValueError(
        f"{record.place} needs a relation (or prompt) with one {{}} where the subject goes, "
        f"it has {' and '.join(map(repr, candidates)) or 'neither'}"
    )


def fact_records(source: Path | Sequence[Mapping[str, Any]], fields: Fields = None) -> list[Record]:
    """Return facts as records. ValueError, with the place, for one without a template, a subject, or an object."""
    records = read_sources(source, FACT, fields)
    for record in records:
        template_of(record)
        for name in FACT:
            text_of(record, name)
    return records


def item_records(
    source: Path | Sequence[Mapping[str, Any]], contrast: bool = False, fields: Fields = None
) -> list[Record]:
    """Return items as records. ValueError, with the place, for an item of no known form, and for one that lacks a text.

    With `contrast`, prompts with targets need a foil.
    """
    records = read_sources(source, fields=fields)
    for record in records:
        check_form(record, contrast)
    return records


def check_levels(levels: Sequence[str]) -> None:
    """Raise ValueError for a level of edits that is asked for twice."""
    check_once("--mask-level", levels)


def form_of(record: Record) -> tuple[str, ...]:
    """Return the one of `FORMS` that an item has. ValueError, with the place, where it has none."""
    form = next((f for f in FORMS if all(record.values.get(name) is not None for name in f)), None)
    if form is None:
        known = "; or ".join(", ".join(columns) for columns in FORMS)
        raise ValueError(f"{record.place} must have {known}: it has {', '.join(map(str, record.values))}")
    return form


def check_form(record: Record, contrast: bool) -> None:
    """Raise ValueError, with the place, for an item that lacks a text of its form, or has a mask and is no edit."""
    form = form_of(record)
    if form == FORMS[0]:
        for name in form:
            string_of(record, name)
        return
    if record.values.get(MASK_FIELD) not in (None, ""):
        raise ValueError(f"{record.place} has a {MASK_FIELD}, which is of edits (pre_text, post_text): leave it out")
    if form == FACT:
        template_of(record)
        for name in FACT:
            text_of(record, name)
        return
    string_of(record, "prompt")
    text_of(record, "target")
    if contrast and record.values.get("foil") is None:
        raise ValueError(f"{record.place} has no foil, which --contrast needs")


def check_pairs(path: Path, batch_by: str | None = None, fields: Fields = None) -> None:
    """Raise ValueError, with the place, for a malformed pair in a file of prompt pairs, and for one without a batch."""
    for number, (place, item) in enumerate(pair_items(path, fields)):
        if batch_by is not None:
            batch_of(place, item, number, batch_by)


def batch_of(place: str, item: Mapping[str, Any], number: int, batch_by: str) -> str:
    """Return the name of the batch of a prompt: its number divided by a size, or the value of its field."""
    if batch_by.isdecimal():
        if int(batch_by) == 0:
            raise ValueError("a batch has at least 1 prompt, not 0")
        return str(number // int(batch_by))
    if item.get(batch_by) is None:
        raise ValueError(f"{place} has no {batch_by!r}, which batches are given by: it has {', '.join(item)}")
    return json.dumps(item[batch_by])


def pair_items(path: Path, fields: Fields = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each item of a file of prompt pairs with its place, for messages. ValueError for a malformed file."""
    try:
        prompts = parse_json(read_text(path), str(path))["prompts"]
    except (KeyError, TypeError) as error:
        raise ValueError(f'{path} must be an object {{"prompts": [...]}}') from error
    if not isinstance(prompts, list) or not prompts:
        raise ValueError(f"{path} has no prompts: expected a list of at least one pair")
    for number, item in enumerate(prompts):
        place = f"{path}, prompt {number}"
        if isinstance(item, dict):
            item = renamed(Record(place, item), fields).values
        check_pair(place, item)
        yield place, item


def check_pair(place: str, item: Any) -> None:
    """Raise ValueError for an item without the four fields, and for answers that are blank or given twice."""
    expected = {"clean": str, "corrupt": str, "answers": list, "wrong_answers": list}
    if not isinstance(item, dict):
        raise ValueError(f"{place} must be an object with {', '.join(expected)}, it is {json.dumps(item)[:40]}")
    for name, kind in expected.items():
        value = item.get(name)
        if not isinstance(value, kind) or (isinstance(value, list) and not all(isinstance(v, str) for v in value)):
            what = "a string" if kind is str else "a list of strings"
            raise ValueError(f"{place}: {name!r} must be {what}, it is {json.dumps(value)[:40]}")
    if not item["answers"]:
        raise ValueError(f"{place} has no answers: give at least one")
    for name in ("answers", "wrong_answers"):
        for answer in item[name]:
            text_of(Record(place, {name: answer}), name)
    answers = [*item["answers"], *item["wrong_answers"]]
    if twice := [answer for number, answer in enumerate(answers) if answer in answers[:number]]:
        what = "an answer and a wrong answer" if twice[0] in item["wrong_answers"] else "an answer"
        raise ValueError(f"{place}: {twice[0]!r} is given twice, as {what}: give each once")
