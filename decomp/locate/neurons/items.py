"""Reading items for neurons: prompts with targets, facts, or edits of texts at several levels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from decomp.core.model import Model
from decomp.corpus.spacing import spaced
from decomp.corpus.tokenizer import Tokenizer
from decomp.io.records import Fields, Record, text_of
from decomp.locate.encoding import bos_of, check_length, encode
from decomp.locate.forms import FACT, FORMS, MASK_FIELD, check_levels, form_of, item_records, string_of, template_of
from decomp.locate.neurons.completions import Completion
from decomp.locate.neurons.spans import CUTS, Cut, cut, cut_mask


@dataclass(frozen=True, eq=False)
class Item:
    """A completion that neurons are found for, with its foil if any; of an edit, at one level."""

    number: int
    """The item's row in its file, counted from 0."""
    place: str
    """The file and line of the item, for messages of errors."""
    fact: str
    """The name of the fact, which prompts for the same fact share; the item's number where none is given."""
    level: str
    """The level of an edit that was asked for (`cut` has the one it came to); empty for prompts."""
    cut: Cut
    """The edit, cut into the context and the changed text."""
    target: Completion
    """The completion by the target, whose probability is attributed."""
    foil: Completion | None
    """The completion by the foil; None where there is none."""
    has_bos: bool
    """Whether contexts begin with the beginning-of-sequence token."""
    tokens: tuple[str, ...]
    """The strings of the predicted tokens, of the target and then of the foil."""
    named: bool = True
    """Whether the input names the fact."""

    @property
    def completions(self) -> list[Completion]:
        """Return the completion by the target, and that by the foil where there is one."""
        return [self.target] if self.foil is None else [self.target, self.foil]


def open_items(
    model: Model,
    tokenizer: Tokenizer,
    source: Path | Sequence[Mapping[str, Any]],
    levels: Sequence[str] = ("token",),
    contrast: bool = False,
    bos: bool = True,
    fields: Fields = None,
) -> list[Item]:
    """Read items from a file, or from mappings, as tokens of a model; errors are those of `read_items`."""
    return read_items(source, tokenizer, bos_of(model, tokenizer, bos), model.max_length(), levels, contrast, fields)


def tokens_of(items: Iterable[Item]) -> Iterator[Int[Tensor, " _"]]:
    """Yield the token ids of all items: of their contexts, and of their completions."""
    for one in items:
        for completion in one.completions:
            yield from (completion.context, completion.target)


def read_items(
    source: Path | Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    bos: int | None,
    positions: int,
    levels: Sequence[str],
    contrast: bool,
    fields: Fields = None,
) -> list[Item]:
    """Read items (JSON lines, CSV, TSV, CounterFact's JSON, or mappings) as tokens, edits once for each level.

    ValueError, with the place, for an item of no known form, for an empty or unedited one, and for one with more tokens
    than `positions`.
    """
    check_levels(levels)
    beginning = [] if bos is None else [bos]
    records = enumerate(item_records(source, contrast, fields))
    items = [one for n, record in records for one in items_of(n, record, tokenizer, beginning, levels, contrast)]
    for one in items:
        for completion in one.completions:
            check_length(one.place, len(completion.context) + len(completion.target) - 1, positions)
    return items


def items_of(
    number: int, record: Record, tokenizer: Tokenizer, beginning: list[int], levels: Sequence[str], contrast: bool
) -> Iterator[Item]:
    """Yield the items in one row of a file: a prompt once, an edit at each level; errors are those of `read_items`."""
    mask = record.values.get(MASK_FIELD)
    if form_of(record) == FORMS[0]:
        for level in levels if mask in (None, "") else [text_of(record, MASK_FIELD)]:
            found = cut_edit(record, tokenizer, level, contrast)
            yield make_item(number, record, level if level in CUTS else "mask", found, tokenizer, beginning, contrast)
    else:
        yield make_item(number, record, "", cut_prompt(record, tokenizer, contrast), tokenizer, beginning, contrast)


def cut_edit(record: Record, tokenizer: Tokenizer, level: str, contrast: bool) -> Cut:
    """Return an edit cut at a level, or at a given part of its `post_text`.

    The context X precedes the change, the target Y is the new text, the foil the old one. ValueError, with the place,
    for an edit that can't be cut so.
    """
    texts = string_of(record, "pre_text"), string_of(record, "post_text")
    try:
        return cut(*texts, level, tokenizer, contrast) if level in CUTS else cut_mask(*texts, level, tokenizer)
    except ValueError as error:
        raise ValueError(f"{record.place}: {error}") from error


def cut_prompt(record: Record, tokenizer: Tokenizer, contrast: bool) -> Cut:
    """Return a prompt as an edit in which the target has replaced the foil.

    ValueError, with the place, for a blank subject, target or foil.
    """
    if form_of(record) == FACT:
        prompt = template_of(record).replace("{}", text_of(record, "subject"))
        target, foil = (text_of(record, name) for name in FACT[1:])
    else:
        prompt, target = string_of(record, "prompt"), text_of(record, "target")
        foil = text_of(record, "foil") if contrast else ""
    before, new = spaced(prompt, target)
    old = spaced(prompt, foil)[1]
    return Cut("", before, old, new, "", *(encode(tokenizer, text) for text in (before, old, new)))


def make_item(
    number: int, record: Record, level: str, found: Cut, tokenizer: Tokenizer, beginning: list[int], contrast: bool
) -> Item:
    """Return the item of one row at a level. ValueError, with the place, for an empty context or an unchanged text."""
    context = beginning + found.before_ids
    if not context:
        raise ValueError(f"{record.place}: nothing precedes what is predicted: begin with a token (without --no-bos)")
    if contrast and found.new_ids == found.old_ids:
        raise ValueError(f"{record.place}: target and foil are the same tokens")
    target, foil = (Completion(torch.tensor(context), torch.tensor(ids)) for ids in (found.new_ids, found.old_ids))
    named = record.values.get("fact") not in (None, "")
    fact = str(record.values["fact"] if named else number)
    tokens = tuple(tokenizer.convert_ids_to_tokens([*found.new_ids, *(found.old_ids if contrast else [])]))
    foils = foil if contrast else None
    return Item(number, record.place, fact, level, found, target, foils, bool(beginning), tokens, named)
