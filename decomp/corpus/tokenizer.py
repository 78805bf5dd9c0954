"""A protocol names all that the package asks of a tokenizer: those of transformers have it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """Text to tokens and back."""

    @property
    def all_special_ids(self) -> list[int]:
        """Return the tokens that stand for no text."""
        ...

    def __len__(self) -> int:
        """Return the number of tokens, added ones included."""
        ...

    def __call__(
        self,
        text: str,
        *,
        add_special_tokens: bool = ...,
        verbose: bool = ...,
        return_offsets_mapping: bool = ...,
        return_attention_mask: bool | None = ...,
        return_token_type_ids: bool | None = ...,
    ) -> Mapping[str, Any]:
        """Return the `input_ids` of a text, and the `offset_mapping` where it is asked for: each token's characters."""
        ...

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the tokens as the vocabulary writes them."""
        ...

    def decode(self, token_ids: Any, *, clean_up_tokenization_spaces: bool = ...) -> str:
        """Return the text of tokens."""
        ...

    def batch_decode(self, sequences: Any, *, clean_up_tokenization_spaces: bool = ...) -> list[str]:
        """Return the text of each of several sequences of tokens."""
        ...
