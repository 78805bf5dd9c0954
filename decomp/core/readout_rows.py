"""The (readout, position) pairs that rows stand for, when readouts are taken back to the embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ReadoutRows:
    """The rows of some readouts: for each readout one row per position up to its target, or its target's alone."""

    targets: Sequence[int]
    """The target of each readout, which is the last position that it reads."""
    own: bool
    """Whether each readout has a single row, that of its target."""
    device: torch.device

    @property
    def stop(self) -> int:
        """Return the position after the last target, from which on no readout reads anything."""
        return max(self.targets) + 1

    @cached_property
    def last_positions(self) -> Int[Tensor, " N"]:
        """Return the target of each readout, as a tensor."""
        return torch.tensor(self.targets, device=self.device)

    @cached_property
    def counts(self) -> Int[Tensor, " N"]:
        """Return the number of rows of each readout."""
        return torch.ones_like(self.last_positions) if self.own else self.last_positions + 1

    @cached_property
    def index(self) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]]:
        """Return the number of each row's readout, and its index among the rows of that readout."""
        readout = torch.repeat_interleave(self.counts)
        first = self.counts.cumsum(0) - self.counts
        return readout, torch.arange(len(readout), device=self.device) - first[readout]

    @cached_property
    def positions(self) -> Int[Tensor, " rows"]:
        """Return each row's position in the text."""
        return self.last_positions if self.own else self.index[1]

    @property
    def last(self) -> Int[Tensor, " N"]:
        """Return the index of the row of each readout's target."""
        return self.counts.cumsum(0) - 1

    def all_positions(self) -> "ReadoutRows":
        """Return the rows of the same readouts at every position up to their targets."""
        return ReadoutRows(self.targets, False, self.device) if self.own else self

    def of_positions(self, values: Float[Tensor, "T *rest"]) -> Float[Tensor, "rows *rest"]:
        """Return, for each row, the value of its position."""
        return values.index_select(0, self.positions)

    def scale_(self, rows: Float[Tensor, "rows F"], factors: Float[Tensor, "T F"]) -> Float[Tensor, "rows F"]:
        """Multiply rows by the factors of their positions, in place; no copy of the factors for every row is made."""
        if self.own:
            return rows.mul_(self.of_positions(factors))
        for part in rows.split(self.counts.tolist()):
            part.mul_(factors[: len(part)])
        return rows

    def pad(self, rows: Float[Tensor, "rows *rest"]) -> Float[Tensor, "N P *rest"]:
        """Return the rows as a rectangle of readouts × rows of a readout, zero where a readout has fewer rows."""
        padded = rows.new_zeros(len(self.targets), 1 if self.own else self.stop, *rows.shape[1:])
        padded[self.index] = rows
        return padded

    def pad_heads(self, rows: Float[Tensor, "rows HV"], heads: int) -> Float[Tensor, "H N P V"]:
        """Return the rows, whose columns are heads side by side, as one rectangle of readouts × rows for each head."""
        parts = rows.unflatten(-1, (heads, -1))
        padded = rows.new_zeros(heads, len(self.targets), 1 if self.own else self.stop, parts.shape[-1])
        padded.permute(1, 2, 0, 3)[self.index] = parts
        return padded


@dataclass(frozen=True)
class BiasShares:
    """The sum of the parts that biases have in some readouts, added up while these are taken back."""

    total: Float[Tensor, " N"]
    """The sum so far, for each readout."""
    readouts: Int[Tensor, " rows"] | None = None
    """The readout that each row belongs to, where rows are single ones (at an expert); None where rows say it."""

    @classmethod
    def none_yet(cls, count: int, like: Tensor) -> "BiasShares":
        """Return sums of zero for `count` readouts."""
        return cls(like.new_zeros(count, dtype=torch.promote_types(like.dtype, torch.float32)))

    def add(
        self, g: Float[Tensor, "rows D"], bias: Float[Tensor, "T D"] | Float[Tensor, " D"] | None, at: ReadoutRows
    ) -> None:
        """Add the products of readouts g of a map's output with its bias, one for all positions or one for each."""
        if bias is not None:
            g, bias = g.to(self.total.dtype), bias.to(self.total.dtype)
            parts = g @ bias if bias.ndim == 1 else torch.linalg.vecdot(g, at.of_positions(bias))
            readouts = at.index[0] if self.readouts is None else self.readouts
            self.total.index_add_(0, readouts, parts)

    def of(self, readouts: Int[Tensor, " rows"]) -> "BiasShares":
        """Return the same sums, to be added to by single rows that belong to the given readouts."""
        return BiasShares(self.total, readouts)
