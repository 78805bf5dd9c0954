"""Contrast items: a prompt, a target and a foil that may follow it, and the word that decides between the two."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from decomp.corpus.context_items import prompt_of_segments
from decomp.corpus.parts import NO_PARTS, Parts
from decomp.corpus.spacing import spaced
from decomp.corpus.tokenizer import Tokenizer
from decomp.io.records import Fields, Record, read_records, text_of

COLUMNS = ("prompt", "target", "foil")
BLIMP_COLUMNS = ("one_prefix_prefix", "one_prefix_word_good", "one_prefix_word_bad")
"""The columns of BLiMP's one-prefix items (Warstadt et al. 2020), whose column `target` holds the evidence."""
BLIMP_NO_EVIDENCE = "NA"
SEGMENT_COLUMNS = ("segments", "target", "foil")
"""The columns of items whose prompt is a list of named segments."""


@dataclass(frozen=True)
class Item:
    """A contrast item: a prompt, two words that may follow it (target and foil), and the word that decides."""

    place: str
    """The file and line of the item, for messages of errors: `items.csv, line 3`."""
    number: int
    """The item's row in its table, counted from 0."""
    name: str
    """The item's name, or its number where it has none."""
    phenomenon: str
    """The phenomenon that the item tests, or the name of its table."""
    prompt: str
    """The text that target and foil may follow."""
    target: str
    """The word that is expected."""
    foil: str
    """The word that is contrasted with it."""
    evidence: str = ""
    """The word of the prompt that decides between target and foil; empty where that is not known."""
    parts: Parts = NO_PARTS
    """The named segments of the prompt, where the item gives them in place of it."""


def read_items(path: Path, fields: Fields = None) -> list[Item]:
    """Return the contrast items of a table with the columns `prompt`, `target` and `foil`, or those of BLiMP.

    In place of a prompt, an item may have `segments`, as the items of `decomp context` do. `fields` gives the table's
    name of a column where it differs. ValueError for a table that can't be read or lacks
    a column, for a cell that is not text, and for a target that equals its foil.
    """
    records = read_records(path, COLUMNS, BLIMP_COLUMNS, SEGMENT_COLUMNS, fields=fields)
    return [item_of(record, number, path.stem) for number, record in enumerate(records)]


def item_of(record: Record, number: int, table: str) -> Item:
    """Return the contrast item in one row; without a name of its own it gets its number and its table's name."""

    def given(column: str, otherwise: str = "") -> str:
        return text_of(record, column, may_be_blank=True) or otherwise

    if BLIMP_COLUMNS[0] in record.values:
        columns = BLIMP_COLUMNS
        named = (str(number), given("UID", table))
        evidence = given("target").removeprefix(BLIMP_NO_EVIDENCE)
    else:
        columns = COLUMNS
        named, evidence = (given("item", str(number)), given("phenomenon", table)), given("evidence")
    target, foil = (text_of(record, column) for column in columns[1:])
    if target == foil:
        raise ValueError(f"{record.place}: target and foil are both {target!r}: they must differ")
    prompt, parts = prompt_of(record, columns[0])
    return Item(record.place, number, *named, prompt, target, foil, evidence, parts)


def prompt_of(record: Record, column: str) -> tuple[str, Parts]:
    """Return the prompt in a column, or the one that the row's `segments` make, with these as its parts."""
    if record.values.get(column) is None:
        return prompt_of_segments(record)
    return text_of(record, column), NO_PARTS


@dataclass(frozen=True)
class TokenisedItem:
    """A contrast item as token ids, with the span of characters of each prompt token."""

    item: Item
    prompt: tuple[int, ...]
    """The prompt's token ids, the beginning-of-sequence token first if there is one."""
    target: tuple[int, ...]
    foil: tuple[int, ...]
    evidence: tuple[int, ...]
    """The indices in `prompt` of the tokens of the evidence, in all its occurrences; empty where it has none."""
    has_bos: bool
    text_spans: tuple[tuple[int, int], ...] = ()
    """The span of characters of each prompt token, the beginning-of-sequence token left out."""


def tokenise(item: Item, tokenizer: Tokenizer, positions: int, bos: int | None) -> TokenisedItem:
    """Return a contrast item as token ids; `bos` is the beginning-of-sequence token, None for none.

    A space between prompt and target (or foil) is part of the latter. ValueError for a text without tokens, for a
    target and a foil of the same tokens, and for an item of more tokens than the model has `positions`.
    """
    prompt, _ = spaced(item.prompt, item.target)
    encoded = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    before = () if bos is None else (bos,)
    ids = {"prompt": tuple(encoded["input_ids"])}
    for role, word in (("target", item.target), ("foil", item.foil)):
        _, text = spaced(item.prompt, word)
        ids[role] = tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) if word.strip() else ()
    if empty := [role for role in ids if not ids[role]]:
        raise ValueError(f"{item.place}: the {empty[0]} {getattr(item, empty[0])!r} has no tokens: give a word")
    if ids["target"] == ids["foil"]:
        raise ValueError(f"{item.place}: target {item.target!r} and foil {item.foil!r} are the same tokens")
    length = len(before) + len(ids["prompt"]) + max(len(ids["target"]), len(ids["foil"]))
    if length > positions:
        raise ValueError(f"{item.place}: the item has {length} tokens, the model has {positions} positions: shorten it")
    spans = tuple((start, end) for start, end in encoded["offset_mapping"])
    evidence = tuple(len(before) + place for place in evidence_tokens(item, encoded["offset_mapping"]))
    return TokenisedItem(item, before + ids["prompt"], ids["target"], ids["foil"], evidence, bos is not None, spans)


def evidence_tokens(item: Item, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return the indices of the tokens that share a character with the evidence, wherever it is a word of the prompt.

    `offsets` are the spans of characters of the prompt's tokens.
    """
    if not item.evidence:
        return []
    spans = [m.span() for m in re.finditer(rf"(?<!\w){re.escape(item.evidence)}(?!\w)", item.prompt)]
    return [
        place
        for place, (first, last) in enumerate(offsets)
        if any(first < end and begin < last for begin, end in spans)
    ]
