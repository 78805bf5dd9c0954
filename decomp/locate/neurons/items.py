"""Items of completions: prompts with targets, facts, or edits of code at several levels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from decomp.corpus.contrast_items import spaced
from decomp.io.records import Record, read_records
from decomp.locate.encoding import check_length, encode, text_of
from decomp.locate.facts import template_of
from decomp.locate.neurons.completions import Completion
from decomp.locate.neurons.spans import Cut, cut

FORMS = (("pre_text", "post_text"), ("subject", "target_true", "target_false"), ("prompt", "target"))
"""Columns of an edit, a fact (and its relation), a prompt with its target (and perhaps a foil)."""


@dataclass(frozen=True)
class Asked:
    """One completion that is asked about, with what it may be contrasted with; an item at one level."""

    item: int
    """Its place in the file, from 0."""
    place: str
    fact: str
    """Prompts for the same fact have the same name here; the item's number where none is given."""
    level: str
    """Of an edit, as it was asked for: `cut` has the level that it came to. Empty for prompts."""
    cut: Cut
    target: Completion
    foil: Completion | None
    has_bos: bool

    @property
    def completions(self) -> list[Completion]:
        return [self.target] if self.foil is None else [self.target, self.foil]


def read_asked(
    path: Path, tokenizer: Any, bos: int | None, positions: int, levels: Sequence[str], contrast: bool
) -> list[Asked]:
    """ValueError, with the place, for an item of no known form, an empty or unedited one, or one too long."""
    records = read_records(path, ())
    front = [] if bos is None else [bos]
    asked = [a for n, r in enumerate(records) for a in read_item(n, r, tokenizer, front, levels, contrast)]
    for one in asked:
        for completion in one.completions:
            check_length(one.place, len(completion.context) + len(completion.target) - 1, positions)
    return asked


def read_item(
    number: int, record: Record, tokenizer: Any, front: list[int], levels: Sequence[str], contrast: bool
) -> Iterator[Asked]:
    form = next((f for f in FORMS if all(record.values.get(name) is not None for name in f)), None)
    if form is None:
        known = "; or ".join(", ".join(columns) for columns in FORMS)
        raise ValueError(f"{record.place} must have {known}: it has {', '.join(map(str, record.values))}")
    if form is FORMS[0]:
        for level in levels:
            yield ask(number, record, level, cut_edit(record, tokenizer, level, contrast), front, contrast)
    else:
        yield ask(number, record, "", cut_prompt(record, tokenizer, contrast), front, contrast)


def cut_edit(record: Record, tokenizer: Any, level: str, contrast: bool) -> Cut:
    """X is what precedes the change, Y what is new, the foil what was there before."""
    try:
        return cut(text_of(record, "pre_text"), text_of(record, "post_text"), level, tokenizer, contrast)
    except ValueError as error:
        raise ValueError(f"{record.place}: {error}") from error


def cut_prompt(record: Record, tokenizer: Any, contrast: bool) -> Cut:
    """A prompt's target as if it had been put in the place of its foil."""
    if "subject" in record.values:
        prompt = template_of(record).replace("{}", text_of(record, "subject"))
        target, foil = (text_of(record, name) for name in FORMS[1][1:])
    else:
        prompt, target = (text_of(record, name) for name in FORMS[2])
        if contrast and record.values.get("foil") is None:
            raise ValueError(f"{record.place} has no foil, which --contrast needs")
        foil = text_of(record, "foil") if contrast else ""
    if not target.strip() or (contrast and not foil.strip()):
        raise ValueError(f"{record.place}: the {'foil' if target.strip() else 'target'} is empty")
    before, new = spaced(prompt, target)
    old = spaced(prompt, foil)[1]
    return Cut("", before, old, new, "", *(encode(tokenizer, text) for text in (before, old, new)))


def ask(number: int, record: Record, level: str, found: Cut, front: list[int], contrast: bool) -> Asked:
    context = front + found.before_ids
    if not context:
        raise ValueError(f"{record.place}: nothing precedes what is predicted: begin with a token (without --no-bos)")
    if contrast and found.new_ids == found.old_ids:
        raise ValueError(f"{record.place}: target and foil are the same tokens")
    target, foil = (Completion(torch.tensor(context), torch.tensor(ids)) for ids in (found.new_ids, found.old_ids))
    fact = str(number if record.values.get("fact") in (None, "") else record.values["fact"])
    return Asked(number, record.place, fact, level, found, target, foil if contrast else None, bool(front))
