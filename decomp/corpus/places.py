"""Where tokens and words stand in the text of an article."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
from jaxtyping import Int32


class Place(NamedTuple):
    """Where a token (or word) stands in its article: nowhere for the beginning-of-sequence token, word −1."""

    word: int = -1
    char_start: int | None = None
    char_end: int | None = None
    """The character after the last. Tokens that share a character's bytes share its place."""


@dataclass(frozen=True, eq=False)
class Places(Sequence[Place]):
    """A sequence of `Place`, in twelve bytes each: an article has millions.

    A row of `rows` is word, first character, and the one after the last; the word is −1 where there is no place.
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
        """Return these places behind that of a beginning-of-sequence token."""
        return Places(np.concatenate([np.full((1, 3), -1, np.int32), self.rows]))


def place_of(row: list[int]) -> Place:
    """Return the place that a row holds."""
    return Place(*row) if row[0] >= 0 else Place()
