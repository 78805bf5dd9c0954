"""The sources of a text: a partition of its positions, by default into single tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

Labels = Int[Tensor, " T"] | Sequence[int]
"""A number for each token; tokens of the same number are one source."""


@dataclass(frozen=True, eq=False)
class Partition:
    """A partition of a text's positions into sources, which need not be contiguous (a sentence that is interrupted)."""

    labels: Int[Tensor, " T"]
    """The source of each position; sources are numbered from 0 in the order of their first positions."""
    names: tuple[str, ...] | None = None
    """The names of the sources, in the order of their numbers; None where they have none but their tokens."""

    @classmethod
    def tokens(cls, length: int) -> "Partition":
        """Return the partition of `length` positions in which each is a source of its own."""
        return cls(torch.arange(length))

    @classmethod
    def of(cls, labels: "Labels | Partition") -> "Partition":
        """Return the partition in which positions of equal labels are one source; labels are integers of shape (T,).

        ValueError for labels of another shape or type, and for none at all.

            >>> Partition.of([7, 7, 5, 7]).labels.tolist()
            [0, 0, 1, 0]
        """
        if isinstance(labels, Partition):
            return labels
        given = torch.as_tensor(labels)
        if given.ndim != 1 or len(given) == 0 or given.is_floating_point() or given.is_complex():
            raise ValueError(
                f"sources are labels of shape (T,), one integer per token, not {tuple(given.shape)} of {given.dtype}"
            )
        return cls(in_order_of_first(given.cpu()))

    def __len__(self) -> int:
        """Return the number of positions."""
        return len(self.labels)

    @cached_property
    def begun(self) -> Int[Tensor, " T"]:
        """Return for each position the number of sources that have begun, its own included."""
        return self.labels.cummax(0).values + 1

    @cached_property
    def count(self) -> int:
        """Return the number of sources."""
        return int(self.begun[-1])

    @property
    def is_tokens(self) -> bool:
        """Return whether each position is a source of its own."""
        return self.count == len(self)

    @cached_property
    def begins(self) -> list[int]:
        """Return the first position of each source."""
        positions: list[int] = torch.searchsorted(self.begun, torch.arange(1, self.count + 1)).tolist()
        return positions

    def begin(self, source: int) -> int:
        """Return the first position of a source; the text's length for a number that no source has."""
        return self.begins[source] if source < self.count else len(self)

    def positions(self, sources: range) -> Int[Tensor, " positions"]:
        """Return the positions that belong to the given sources."""
        return ((self.labels >= sources.start) & (self.labels < sources.stop)).nonzero()[:, 0]


def in_order_of_first(labels: Int[Tensor, " T"]) -> Int[Tensor, " T"]:
    """Return labels numbered from 0 in the order in which they first occur."""
    values, number = labels.unique(return_inverse=True)
    first = torch.full((len(values),), len(labels)).scatter_reduce_(0, number, torch.arange(len(labels)), "amin")
    return first.argsort().argsort()[number]


def partitions_of(lengths: Sequence[int], given: Sequence[Partition] | None) -> list[Partition]:
    """Return the partition of each text: the given ones, or where they are None those into single tokens.

    ValueError for partitions whose number or lengths are not those of the texts.
    """
    if given is None:
        return [Partition.tokens(length) for length in lengths]
    if [len(partition) for partition in given] != list(lengths):
        raise ValueError(
            f"sources must be given for every token: the texts have {', '.join(map(str, lengths))} tokens, "
            f"the labels {', '.join(str(len(partition)) for partition in given) or 'none'}"
        )
    return list(given)
