"""Contrast items: a prompt, a target and a foil that may follow it, and the word that is known to decide."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from decomp.corpus.tokenizer import Tokenizer
from decomp.io.records import Fields, Record, read_records, text_of

COLUMNS = ("prompt", "target", "foil")
BLIMP_COLUMNS = ("one_prefix_prefix", "one_prefix_word_good", "one_prefix_word_bad")
"""Columns of BLiMP (Warstadt et al. 2020); `target`, where it is there, is then the evidence."""
BLIMP_NO_EVIDENCE = "NA"


@dataclass(frozen=True)
class Item:
    """A prompt, what may follow it, and which word of it decides."""

    place: str
    """`items.csv, line 3`."""
    number: int
    """Its row in the table, from 0."""
    name: str
    phenomenon: str
    prompt: str
    target: str
    foil: str
    evidence: str = ""
    """The word of the prompt that decides between target and foil; empty where none is known."""


def read_items(path: Path, fields: Fields = None) -> list[Item]:
    """Return the items of a table, in our form or BLiMP's; a column `one_prefix_prefix` tells them apart.

    `fields`: see `read_records`. ValueError for a table that can't be read or lacks columns, cells that are no text,
    a target that is its foil.
    """
    records = read_records(path, COLUMNS, BLIMP_COLUMNS, fields=fields)
    return [item_of(record, number, path.stem) for number, record in enumerate(records)]


def item_of(record: Record, number: int, table: str) -> Item:
    """Return one row as an item, named by its number and table where it doesn't name itself."""

    def given(column: str, otherwise: str = "") -> str:
        return text_of(record, column, may_be_blank=True) or otherwise

    if BLIMP_COLUMNS[0] in record.values:
        columns = BLIMP_COLUMNS
        named = (str(number), given("UID", table))
        evidence = given("target").removeprefix(BLIMP_NO_EVIDENCE)
    else:
        columns = COLUMNS
        named, evidence = (given("item", str(number)), given("phenomenon", table)), given("evidence")
    prompt, target, foil = (text_of(record, column) for column in columns)
    if target == foil:
        raise ValueError(f"{record.place}: target and foil are both {target!r}: they must differ")
    return Item(record.place, number, *named, prompt, target, foil, evidence)


@dataclass(frozen=True)
class TokenisedItem:
    """An item as token ids."""

    item: Item
    prompt: tuple[int, ...]
    """The prompt's tokens, with the beginning-of-sequence token in front where there is one."""
    target: tuple[int, ...]
    foil: tuple[int, ...]
    evidence: tuple[int, ...]
    """Places in `prompt` of the tokens of the evidence, all its occurrences; none where it isn't there."""
    has_bos: bool
    places: tuple[tuple[int, int], ...] = ()
    """The characters of the prompt's own tokens, without that of the beginning of sequence."""


def spaced(prompt: str, target: str) -> tuple[str, str]:
    """Return prompt and target with the space between them in front of the target, where tokenizers want it.

    A target that begins with a letter or digit gets one, unless the prompt is empty or ends in other whitespace.
    """
    bare = prompt.removesuffix(" ")
    moved = bare != prompt and not target[:1].isspace()
    missing = target[:1].isalnum() and bare != "" and not bare[-1:].isspace()
    return bare, f" {target}" if moved or missing else target


def tokenise(item: Item, tokenizer: Tokenizer, positions: int, bos: int | None) -> TokenisedItem:
    """Return prompt, target and foil as tokens, the space between them as `spaced` has it.

    ValueError for what has no tokens, a target that is its foil, an item longer than the model's `positions`.
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
    places = tuple((start, end) for start, end in encoded["offset_mapping"])
    evidence = tuple(len(before) + place for place in evidence_tokens(item, encoded["offset_mapping"]))
    return TokenisedItem(item, before + ids["prompt"], ids["target"], ids["foil"], evidence, bos is not None, places)


def evidence_tokens(item: Item, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return the tokens that share a character with the evidence, wherever it stands in the prompt as a word."""
    if not item.evidence:
        return []
    spans = [m.span() for m in re.finditer(rf"(?<!\w){re.escape(item.evidence)}(?!\w)", item.prompt)]
    return [
        place
        for place, (first, last) in enumerate(offsets)
        if any(first < end and begin < last for begin, end in spans)
    ]
