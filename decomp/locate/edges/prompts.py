"""Reading prompt pairs in auto-circuit's JSON: a clean and a corrupt prompt of one length, right and wrong answers."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from decomp.core.model import Model
from decomp.corpus.tokenizer import Tokenizer
from decomp.corpus.tokens import beginning_of_sequence
from decomp.io.records import Fields, Record, parse_json, renamed, text_of
from decomp.io.texts import read_text
from decomp.locate.encoding import check_length, encode


@dataclass(frozen=True, eq=False)
class PromptPair:
    """A clean prompt and a corrupt prompt of as many tokens, with the tokens of right and of wrong answers."""

    clean: Int[Tensor, " T"]
    """The token ids of the clean prompt."""
    corrupt: Int[Tensor, " T"]
    """The token ids of the corrupt prompt."""
    answers: Int[Tensor, " answers"]
    """The ids of the right answers."""
    wrong_answers: Int[Tensor, " wrong"]
    """The ids of the wrong answers."""
    batch: str | None = None
    """The name of the batch that the pair belongs to, for means over given batches; None without batches."""
    place: str = ""
    """The file and number of the pair, for messages of errors: `prompts.json, prompt 3`."""

    def __len__(self) -> int:
        return len(self.clean)


def tokens_of(prompts: Iterable[PromptPair]) -> Iterator[Int[Tensor, " _"]]:
    """Yield the token ids of all pairs, and of their answers."""
    for prompt in prompts:
        yield from (prompt.clean, prompt.corrupt, prompt.answers, prompt.wrong_answers)


def place_of(prompt: PromptPair, number: int) -> str:
    """Return the place of a prompt for messages of errors; its `number` in a list is used where it has none."""
    return prompt.place or f"prompt {number}"


def read_prompts(
    path: Path,
    tokenizer: Tokenizer,
    config: Any,
    bos: bool = True,
    batch_by: str | None = None,
    fields: Fields = None,
) -> list[PromptPair]:
    """Read prompt pairs, `{"prompts": [{"clean", "corrupt", "answers", "wrong_answers"}]}`, as token ids.

    `batch_by` puts pairs into batches: so many in a row (`"16"`), or those of the same value in a field of the
    prompts. `fields` gives the file's name of a field where it differs. ValueError, with the pair's number, for a
    malformed file, prompts of unequal length, an answer that is not one token or is a wrong one, too, and prompts
    longer than the model's positions.
    """
    first = [beginning_of_sequence(tokenizer, config)] if bos else []
    pairs = []
    for number, (place, item) in enumerate(read_items(path, fields)):
        batch = None if batch_by is None else batch_of(place, item, number, batch_by)
        pairs.append(replace(tokenise(place, item, tokenizer, first), batch=batch, place=place))
        check_length(place, len(pairs[-1]), config.max_position_embeddings)
    return pairs


def open_prompts(
    model: Model,
    tokenizer: Tokenizer,
    path: Path,
    bos: bool = True,
    batch_by: str | None = None,
    fields: Fields = None,
) -> list[PromptPair]:
    """Read prompt pairs as token ids of a model; options and errors are those of `read_prompts`."""
    return read_prompts(path, tokenizer, model.config, bos, batch_by, fields)


def batch_of(place: str, item: Mapping[str, Any], number: int, batch_by: str) -> str:
    """Return the name of the batch of a prompt: its number divided by a size, or the value of its field."""
    if batch_by.isdecimal():
        if int(batch_by) == 0:
            raise ValueError("a batch has at least 1 prompt, not 0")
        return str(number // int(batch_by))
    if item.get(batch_by) is None:
        raise ValueError(f"{place} has no {batch_by!r}, which batches are given by: it has {', '.join(item)}")
    return json.dumps(item[batch_by])


def read_items(path: Path, fields: Fields = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each item of a file of prompts with its place, for messages of errors. ValueError for a malformed file."""
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
        check_item(place, item)
        yield place, item


def check_item(place: str, item: Any) -> None:
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


def tokenise(place: str, item: Mapping[str, Any], tokenizer: Tokenizer, first: Sequence[int]) -> PromptPair:
    """Return an item as token ids, with the ids `first` in front of each prompt; errors are those of `read_prompts`."""
    clean, corrupt = (encode(tokenizer, item[side]) for side in ("clean", "corrupt"))
    if len(clean) != len(corrupt):
        raise ValueError(
            f"{place}: clean has {len(clean)} tokens, corrupt {len(corrupt)}, they must be as many: "
            f"{shown(clean, tokenizer)} | {shown(corrupt, tokenizer)}"
        )
    if not clean:
        raise ValueError(f"{place}: the prompts have no tokens")
    right, wrong = (
        torch.tensor([one_token(f"{place}: {name}", text, tokenizer) for text in item[name]], dtype=torch.long)
        for name in ("answers", "wrong_answers")
    )
    return PromptPair(torch.tensor([*first, *clean]), torch.tensor([*first, *corrupt]), right, wrong)


def one_token(what: str, text: str, tokenizer: Tokenizer) -> int:
    """Return the id of a text that is one token. ValueError, which names `what` it is for, for another text."""
    ids = encode(tokenizer, text)
    if len(ids) != 1:
        raise ValueError(
            f"{what} must be of one token each, {text!r} is {len(ids)} ({shown(ids, tokenizer)}); "
            "most begin with a space"
        )
    return ids[0]


def shown(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """Return the strings of tokens side by side, for the message of an error."""
    return " ".join(tokenizer.convert_ids_to_tokens(ids))
