"""Reading texts of items, and turning them into token ids."""

from collections.abc import Sequence

from decomp.core.model import Model
from decomp.corpus.tokenizer import Tokenizer
from decomp.corpus.tokens import beginning_of_sequence


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the token ids of a text, without special tokens."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def bos_of(model: Model, tokenizer: Tokenizer, bos: bool) -> int | None:
    """Return the beginning-of-sequence token that prompts start with; None if `bos` is false."""
    return beginning_of_sequence(tokenizer, model.config) if bos else None


def common_start(first: Sequence[object], second: Sequence[object]) -> int:
    """Return the number of leading elements that two sequences have in common."""
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def check_length(place: str, tokens: int, positions: int) -> None:
    """Raise ValueError, with the place, for more tokens than the model has positions."""
    if tokens > positions:
        raise ValueError(f"{place} has {tokens} tokens, the model has {positions} positions: shorten it")
