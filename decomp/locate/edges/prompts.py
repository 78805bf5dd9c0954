"""Reading prompt pairs in auto-circuit's JSON: a clean and a corrupt prompt of one length, right and wrong answers."""

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
from decomp.io.records import Fields
from decomp.locate.encoding import check_length, encode
from decomp.locate.forms import batch_of, pair_items


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
    for number, (place, item) in enumerate(pair_items(path, fields)):
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
