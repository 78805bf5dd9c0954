"""Attention frozen at one text: the attention weights are constants, so that the output is linear in the input."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.network import Attention
from decomp.core.readout_rows import BiasShares, ReadoutRows

TARGET_BLOCK = 256
"""The number of targets whose attention weights are held in memory at a time."""


def strips(length: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds [first, last) of successive targets of a text, `step` of them at a time."""
    return ((first, min(first + step, length)) for first in range(0, length, step))


class AttentionRows(Protocol):
    """The attention weights of one layer on one text, as the model's own function computes them."""

    def __call__(self, first: int, last: int) -> Float[Tensor, "H targets last"]:
        """Return the attention weights of the targets [first, last) on the positions before `last`, for every head."""
        ...

    def to_inputs(self, g: Float[Tensor, "N H P stop"], at: ReadoutRows) -> Float[Tensor, "N stop D"]:
        """Return gradients with respect to the attention's input, from those with respect to its weights.

        The vector–Jacobian product of the model's own way from the input to queries, keys, scores and weights.
        `g` holds per readout the rows of all targets up to its own, or where `at.own` that of its own alone.
        """
        ...

    @property
    def mask(self) -> Float[Tensor, "1 1 T T"]:
        """Return what is added to the attention scores; usually one tensor for all layers."""
        ...

    @property
    def nbytes(self) -> int:
        """Return the bytes held beside the mask."""
        ...


@dataclass(frozen=True)
class KeptRows:
    """The attention weights of one layer on one text, held in memory instead of computed at every use."""

    rows: AttentionRows
    weights: Float[Tensor, "H T T"]

    def __call__(self, first: int, last: int) -> Float[Tensor, "H targets last"]:
        return self.weights[:, first:last, :last]

    def to_inputs(self, g: Float[Tensor, "N H P stop"], at: ReadoutRows) -> Float[Tensor, "N stop D"]:
        return self.rows.to_inputs(g, at)

    @property
    def mask(self) -> Float[Tensor, "1 1 T T"]:
        return self.rows.mask

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + self.weights.numel() * self.weights.element_size()


@dataclass(frozen=True)
class FrozenAttention:
    """An attention layer whose attention weights are those of one text's forward pass."""

    attention: Attention
    rows: AttentionRows

    mixes_positions = True

    def carry(self, x: Float[Tensor, "T D"], *, with_bias: bool) -> Float[Tensor, "T D"]:
        """Return Σ_h Σ_j A^h[i, j] · x[j] W_V^h W_O^h for every target i, with the biases of both maps or without."""
        length, heads = len(x), self.attention.heads
        values = self.values(x, with_bias=with_bias)
        blocks = [self.rows(first, last) @ values[:, :last] for first, last in strips(length, TARGET_BLOCK)]
        mixed = torch.cat(blocks, 1).transpose(0, 1).reshape(length, heads * values.shape[-1])
        return self.attention.output(mixed, with_bias=with_bias)

    def values(self, x: Float[Tensor, "T D"], *, with_bias: bool) -> Float[Tensor, "H T V"]:
        """Return the values x W_V of every head; heads that share values have the same."""
        values = self.attention.value(x, with_bias=with_bias).view(len(x), self.attention.kv_heads, -1)
        return values.transpose(0, 1).repeat_interleave(self.attention.heads // self.attention.kv_heads, 0)

    def pull(
        self, g: Float[Tensor, "rows D"], at: ReadoutRows, shares: BiasShares | None = None
    ) -> Float[Tensor, "rows_below D"]:
        """Return readouts g of the output turned into readouts of the input, at every position up to their target."""
        if shares is not None:
            shares.add(g, self.attention.output.bias, at)
        return self.through_values(at.pad_heads(g @ self.attention.output.weight.T, self.attention.heads), at, shares)

    def differentiate(
        self, g: Float[Tensor, "rows D"], at: ReadoutRows, x: Float[Tensor, "T D"]
    ) -> Float[Tensor, "rows_below D"]:
        """Return gradients with respect to the real input x, through the values and through the attention weights."""
        dz, below = at.pad_heads(g @ self.attention.output.weight.T, self.attention.heads), at.all_positions()
        values = self.values(x[: at.stop], with_bias=True)
        to_weights = (dz.flatten(1, 2) @ values.mT).view(*dz.shape[:3], at.stop).transpose(0, 1)
        return self.through_values(dz, at) + self.rows.to_inputs(to_weights, at)[below.index]

    def through_values(
        self, dz: Float[Tensor, "H N P V"], at: ReadoutRows, shares: BiasShares | None = None
    ) -> Float[Tensor, "rows_below D"]:
        """Return readouts dz of every head's mixed values turned into readouts of the attention's input."""
        kv_heads, below = self.attention.kv_heads, at.all_positions()
        to_values = (self.own_rows_back if at.own else self.shared_rows_back)(dz, at)
        dv = to_values.unflatten(0, (kv_heads, -1)).sum(1).permute(1, 2, 0, 3)[below.index].flatten(1)
        if shares is not None:
            shares.add(dv, self.attention.value.bias, below)
        return dv @ self.attention.value.weight.T

    def own_rows_back(self, dz: Float[Tensor, "H N 1 V"], at: ReadoutRows) -> Float[Tensor, "H N stop V"]:
        """Return readouts of mixed values turned into readouts of values, where each has its target's row alone."""
        first = min(at.targets)
        weights = self.rows(first, at.stop)[:, at.last_positions - first]
        return weights[..., None] * dz

    def shared_rows_back(self, dz: Float[Tensor, "H N stop V"], at: ReadoutRows) -> Float[Tensor, "H N stop V"]:
        """Return readouts of mixed values turned into readouts of values, where each has rows at all positions."""
        to_values = torch.zeros_like(dz)
        for first, last in strips(at.stop, TARGET_BLOCK):
            # With the readouts side by side, the weights are not copied for each of them.
            beside = dz[:, :, first:last].transpose(1, 2).flatten(2)
            carried = self.rows(first, last).mT @ beside
            to_values[:, :, :last] += carried.unflatten(2, (dz.shape[1], -1)).transpose(1, 2)
        return to_values

    def holding_rows(self, length: int) -> "FrozenAttention":
        """Return the same operator with its attention weights, of a text of this length, held in memory."""
        return replace(self, rows=KeptRows(self.rows, self.rows(0, length)))

    @property
    def nbytes(self) -> int:
        """Return the bytes held beside the model's own weights."""
        return self.rows.nbytes
