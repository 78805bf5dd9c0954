"""The place of each token in its article: its word, and its span of characters."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
from jaxtyping import Int32


class Place(NamedTuple):
    """The word and the span of characters of a token; word −1 and no characters for the beginning-of-sequence token."""

    word: int = -1
    char_start: int | None = None
    char_end: int | None = None
    """The character after the token's last. Tokens that are bytes of one character share its span."""


@dataclass(frozen=True, eq=False)
class Places(Sequence[Place]):
    """A compact sequence of `Place`, twelve bytes each, since an article may have millions of tokens.

    The columns of `rows` are the word, the first character and the one after the last; −1 where there is no place.
    """

    rows: Int32[np.ndarray, "T 3"]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Place: ...

    @overload
    def __getitem__(self, index: slice) -> "Places": ...

    def __getitem__(self, index: int | slice) -> "Place | Places":
        if isinstance(index, slice):
            return Places(self.rows[index])
        return place_of(self.rows[int(index)].tolist())

    def __iter__(self) -> Iterator[Place]:
        return map(place_of, self.rows.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def after_nowhere(self) -> "Places":
        """Return these places with that of a beginning-of-sequence token in front."""
        return Places(np.concatenate([np.full((1, 3), -1, np.int32), self.rows]))


def place_of(row: list[int]) -> Place:
    """Return a row of `Places.rows` as a `Place`."""
    return Place(*row) if row[0] >= 0 else Place()
