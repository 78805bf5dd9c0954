"""Prompt pairs: a clean prompt, a corrupt one of as many tokens, right and wrong answers (auto-circuit's JSON)."""

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
    """A clean prompt and a corrupt one of as many tokens, with the tokens that answer it, rightly and wrongly."""

    clean: Int[Tensor, " T"]
    corrupt: Int[Tensor, " T"]
    answers: Int[Tensor, " answers"]
    wrong_answers: Int[Tensor, " wrong"]
    batch: str | None = None
    """The given batch that it is of, for means over batches."""
    place: str = ""
    """Where it stands, for errors: `prompts.json, prompt 3`."""

    def __len__(self) -> int:
        return len(self.clean)


def tokens_of(prompts: Iterable[PromptPair]) -> Iterator[Int[Tensor, " _"]]:
    """Yield the tokens of all pairs and their answers."""
    for prompt in prompts:
        yield from (prompt.clean, prompt.corrupt, prompt.answers, prompt.wrong_answers)


def place_of(prompt: PromptPair, number: int) -> str:
    """Return where a prompt stands, by its number in a list where it does not say so itself."""
    return prompt.place or f"prompt {number}"


def read_prompts(
    path: Path,
    tokenizer: Tokenizer,
    config: Any,
    bos: bool = True,
    batch_by: str | None = None,
    fields: Fields = None,
) -> list[PromptPair]:
    """Read the pairs of `{"prompts": [{"clean", "corrupt", "answers", "wrong_answers"}]}` as tokens.

    `batch_by`: the given batches, as so many prompts in a row (`"16"`) or by a field of the prompts. ValueError,
    with the prompt's number, for a malformed file, pairs of unequal length, an answer that is not one token or is
    a wrong one too, prompts longer than the context.
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
    """Read the pairs of a file as this model's tokens. ValueError as in `read_prompts`."""
    return read_prompts(path, tokenizer, model.config, bos, batch_by, fields)


def batch_of(place: str, item: Mapping[str, Any], number: int, batch_by: str) -> str:
    """Return the given batch of a prompt: its number divided by a size, or the value of a field."""
    if batch_by.isdecimal():
        if int(batch_by) == 0:
            raise ValueError("a batch has at least 1 prompt, not 0")
        return str(number // int(batch_by))
    if item.get(batch_by) is None:
        raise ValueError(f"{place} has no {batch_by!r}, which batches are given by: it has {', '.join(item)}")
    return json.dumps(item[batch_by])


def read_items(path: Path, fields: Fields = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each item of a file of prompts, with where it stands. ValueError for a malformed one."""
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
    """Raise ValueError for an item without the four fields, or with answers that are blank or given twice."""
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
    """Return an item as tokens, each prompt after the `first` ones. ValueError as in `read_prompts`."""

    def shown(tokens: Sequence[int]) -> str:
        return " ".join(tokenizer.convert_ids_to_tokens(tokens))

    def one_token(name: str, text: str) -> int:
        ids = encode(tokenizer, text)
        if len(ids) != 1:
            raise ValueError(
                f"{place}: {name} must be of one token each, {text!r} is {len(ids)} ({shown(ids)}); "
                "most begin with a space"
            )
        return ids[0]

    def answers(name: str) -> Int[Tensor, " answers"]:
        return torch.tensor([one_token(name, text) for text in item[name]], dtype=torch.long)

    clean, corrupt = (encode(tokenizer, item[side]) for side in ("clean", "corrupt"))
    if len(clean) != len(corrupt):
        raise ValueError(
            f"{place}: clean has {len(clean)} tokens, corrupt {len(corrupt)}, they must be as many: "
            f"{shown(clean)} | {shown(corrupt)}"
        )
    if not clean:
        raise ValueError(f"{place}: the prompts have no tokens")
    return PromptPair(
        torch.tensor([*first, *clean]), torch.tensor([*first, *corrupt]), answers("answers"), answers("wrong_answers")
    )
