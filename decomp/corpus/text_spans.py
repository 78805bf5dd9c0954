"""The part of an article's text that each token stands for: its word, and its span of characters."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
from jaxtyping import Int32


class TextSpan(NamedTuple):
    """The word and the span of characters of a token; word −1 and no characters for the beginning-of-sequence token."""

    word: int = -1
    char_start: int | None = None
    char_end: int | None = None
    """The character after the token's last. Tokens that are bytes of one character share its span."""


@dataclass(frozen=True, eq=False)
class TextSpans(Sequence[TextSpan]):
    """A compact sequence of `TextSpan`, twelve bytes each, since an article may have millions of tokens.

    The columns of `rows` are the word, the first character and the one after the last; −1 where there is none.
    """

    rows: Int32[np.ndarray, "T 3"]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> TextSpan: ...

    @overload
    def __getitem__(self, index: slice) -> "TextSpans": ...

    def __getitem__(self, index: int | slice) -> "TextSpan | TextSpans":
        if isinstance(index, slice):
            return TextSpans(self.rows[index])
        return text_span_of(self.rows[int(index)].tolist())

    def __iter__(self) -> Iterator[TextSpan]:
        return map(text_span_of, self.rows.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def with_bos(self) -> "TextSpans":
        """Return these spans after that of a beginning-of-sequence token."""
        return TextSpans(np.concatenate([np.full((1, 3), -1, np.int32), self.rows]))


def text_span_of(row: list[int]) -> TextSpan:
    """Return a row of `TextSpans.rows` as a `TextSpan`."""
    return TextSpan(*row) if row[0] >= 0 else TextSpan()
