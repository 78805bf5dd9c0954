"""The methods of a tokenizer that this package uses, which the tokenizers of `transformers` have."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """A tokenizer: it turns text into token ids, with the characters of each, and token ids into text."""

    @property
    def all_special_ids(self) -> list[int]:
        """Return the ids of the tokens that stand for no text, such as that of the beginning of a sequence."""
        ...

    def __len__(self) -> int:
        """Return the size of the vocabulary, added tokens included."""
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
        """Return the `input_ids` of a text, and on demand the `offset_mapping`: each token's span of characters."""
        ...

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the strings by which the vocabulary names the tokens (for byte-level ones `Ġthe`)."""
        ...

    def decode(self, token_ids: Any, *, clean_up_tokenization_spaces: bool = ...) -> str:
        """Return the text of a sequence of token ids."""
        ...

    def batch_decode(self, sequences: Any, *, clean_up_tokenization_spaces: bool = ...) -> list[str]:
        """Return the text of each of several sequences of token ids."""
        ...
