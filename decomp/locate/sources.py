"""Reading items from tables, JSON lists, CounterFact's nested form, or mappings in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from decomp.io.records import Fields, Record, parse_json, read_records, renamed
from decomp.io.texts import read_text, suffix_of

NESTED = "requested_rewrite"
"""The field of CounterFact (Meng et al. 2022) that holds an item's prompt, subject and objects."""


def read_sources(
    source: Path | Sequence[Mapping[str, Any]], required: Sequence[str] = (), fields: Fields = None
) -> list[Record]:
    """Return the items of a file, or mappings, as records that have the `required` columns.

    Nested items of CounterFact are flattened. `fields` gives the file's name of a column where it differs. ValueError
    for a file that can't be read, is malformed or empty, and for an item without a required column.
    """
    found = records_of(source) if isinstance(source, Path) else items_of(source)
    records = [renamed(flat(record), fields) for record in found]
    for record in records:
        if missing := [name for name in required if record.values.get(name) is None]:
            raise ValueError(f"{record.place} lacks {', '.join(missing)}: it has {', '.join(map(str, record.values))}")
    return records


def records_of(path: Path) -> list[Record]:
    """Return the rows of a table, or the objects of a JSON list. ValueError for another file."""
    if suffix_of(path) != ".json":
        return read_records(path, ())
    items = parse_json(read_text(path), str(path))
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{path} must be a list of at least one object, as CounterFact's is")
    return [Record(f"{path}, item {number}", item) for number, item in enumerate(items)]


def items_of(items: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Return mappings as records, named by their number. ValueError for an empty list."""
    if not items:
        raise ValueError("there are no items: give at least one")
    return [Record(f"item {number}", item) for number, item in enumerate(items)]


def flat(record: Record) -> Record:
    """Return an item of CounterFact with its nested fields as columns; its new target becomes the false object.

    ValueError for nested fields that are not those of CounterFact.
    """
    nested = record.values.get(NESTED)
    if nested is None:
        return record
    try:
        objects = {ours: nested[theirs]["str"] for ours, theirs in OBJECTS.items()}
        found = {"relation": nested["prompt"], "subject": nested["subject"], **objects}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{record.place}: {NESTED} must have prompt, subject, target_true and target_new with a str each, "
            f"as CounterFact's has: {error} is missing"
        ) from error
    return replace(record, values={**record.values, **found})


OBJECTS = {"target_true": "target_true", "target_false": "target_new"}
"""The names of the columns of objects, each with the name that CounterFact has for it."""
