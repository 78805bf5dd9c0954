"""Reading facts: a relation of a subject to a true and to a false object (CounterFact; Meng et al. 2022)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from decomp.corpus.spacing import spaced
from decomp.corpus.tokenizer import Tokenizer
from decomp.io.records import Fields, Record, text_of
from decomp.locate.encoding import check_length, common_start, encode
from decomp.locate.forms import FACT, fact_records, template_of

ROLES = ("bos", "before", "first_subject", "middle_subject", "last_subject", "first_after", "further", "last")
"""The roles of a prompt's tokens with respect to its subject, in the order of the text."""
OBJECT_ROLES = ("true_object", "false_object")
"""The roles of the first tokens of an object of several tokens, which the model is given to predict the rest."""


@dataclass(frozen=True)
class Object:
    """The tokens of an object from the first one on that differs from the other object's."""

    ids: tuple[int, ...]
    tokens: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Fact:
    """A fact as tokens: a prompt (with the tokens that both objects begin with), and the rest of either object."""

    ids: Int[Tensor, " T"]
    """The token ids of the prompt, with those that both objects begin with."""
    tokens: tuple[str, ...]
    """The strings of these tokens."""
    roles: tuple[str, ...]
    """The role of each token with respect to the subject."""
    true: Object
    """The rest of the true object."""
    false: Object
    """The rest of the false object."""
    has_bos: bool
    """Whether the first token is the beginning-of-sequence token."""
    place: str = ""
    """The file and line of the fact, for messages of errors: `facts.jsonl, line 3`."""

    @property
    def token(self) -> int:
        """Return the first token of the true object that differs from the false one's."""
        return self.true.ids[0]

    @property
    def foil(self) -> int:
        """Return the first token of the false object that differs from the true one's."""
        return self.false.ids[0]

    @property
    def last(self) -> int:
        """Return the last position, which predicts the object."""
        return len(self.ids) - 1


def roles_of(in_subject: list[bool]) -> tuple[str, ...]:
    """Return the role of each token of a prompt (Meng et al. 2022), from whether it is part of the subject.

    The last token of the prompt is always `last`; a subject of one token is `last_subject`.
    """
    first, last = in_subject.index(True), len(in_subject) - 1 - in_subject[::-1].index(True)
    roles = ["before"] * first + ["middle_subject"] * (last - first + 1) + ["further"] * (len(in_subject) - last - 1)
    roles[first] = "first_subject"
    roles[last] = "last_subject"
    roles[last + 1 : last + 2] = ["first_after"] * len(roles[last + 1 : last + 2])
    roles[-1] = "last"
    return tuple(roles)


def make_fact(record: Record, tokenizer: Tokenizer, bos: int | None) -> Fact:
    """Return an item as tokens, the beginning-of-sequence token `bos` first unless it is None.

    ValueError, with the place, for a template without `{}`, an empty subject or object, and objects that do not differ.
    """
    template, subject = template_of(record), text_of(record, "subject")
    begin, filled = template.index("{}"), template.replace("{}", subject)
    prompt, _ = spaced(filled, text_of(record, FACT[1]))
    shared, true, false = objects_of(record, filled, tokenizer)
    encoded = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    in_subject = [start < begin + len(subject) and stop > begin for start, stop in encoded["offset_mapping"]]
    beginning = [] if bos is None else [bos]
    ids = [*beginning, *encoded["input_ids"], *shared]
    tokens = tuple(tokenizer.convert_ids_to_tokens(ids))
    roles = ("bos",) * len(beginning) + roles_of(in_subject + [False] * len(shared))
    return Fact(torch.tensor(ids), tokens, roles, true, false, bos is not None, record.place)


def objects_of(record: Record, filled: str, tokenizer: Tokenizer) -> tuple[list[int], Object, Object]:
    """Return the tokens that both objects begin with, and the rest of the true and of the false object.

    `filled` is the text that the objects follow. ValueError, with the place, for objects that do not differ.
    """
    true, false = (encode(tokenizer, spaced(filled, text_of(record, name))[1]) for name in FACT[1:])
    shared = common_start(true, false)
    if shared == min(len(true), len(false)):
        raise ValueError(
            f"{record.place}: target_true {record.values['target_true']!r} and target_false "
            f"{record.values['target_false']!r} must differ, neither one the beginning of the other"
        )
    rest_of_true, rest_of_false = (
        Object(tuple(ids), tuple(tokenizer.convert_ids_to_tokens(ids))) for ids in (true[shared:], false[shared:])
    )
    return true[:shared], rest_of_true, rest_of_false


def read_facts(
    source: Path | Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    bos: int | None,
    positions: int,
    fields: Fields = None,
) -> list[Fact]:
    """Read facts from a file (JSON lines, CSV, TSV, or CounterFact's JSON) or from mappings, as tokens.

    `bos` is the beginning-of-sequence token, or None; `positions` is the number of the model's positions. ValueError
    for a file that can't be read, a malformed item, and one with more tokens than positions.
    """
    facts = []
    for record in fact_records(source, fields):
        facts.append(make_fact(record, tokenizer, bos))
        check_length(record.place, len(facts[-1].ids), positions)
    return facts
