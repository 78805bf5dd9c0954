"""Attention frozen at one text: the attention weights are constants, so that the output is linear in the input."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.network import Attention
from decomp.core.readout_rows import ReadoutRows

TARGET_BLOCK = 256
"""The number of targets whose attention weights are held in memory at a time."""


class AttentionRows(Protocol):
    """The attention weights of one layer on one text, as the model's own function computes them."""

    def __call__(self, first: int, last: int) -> Float[Tensor, "H targets T"]:
        """Return the attention weights of the targets [first, last) on all positions, for every head."""
        ...

    def to_inputs(self, g: Float[Tensor, "N H P stop"], at: ReadoutRows) -> Float[Tensor, "N stop D"]:
        """Return gradients with respect to the attention's input, from those with respect to its weights.

        The vector–Jacobian product of the model's own way from the input to queries, keys, scores and weights.
        `g` holds per readout the rows of all targets up to its own, or where `at.own` that of its own alone.
        """
        ...

    @property
    def nbytes(self) -> int:
        """Return the bytes held."""
        ...


@dataclass(frozen=True)
class KeptRows:
    """The attention weights of one layer on one text, held in memory instead of computed at every use."""

    rows: AttentionRows
    weights: Float[Tensor, "H T T"]

    def __call__(self, first: int, last: int) -> Float[Tensor, "H targets T"]:
        return self.weights[:, first:last]

    def to_inputs(self, g: Float[Tensor, "N H P stop"], at: ReadoutRows) -> Float[Tensor, "N stop D"]:
        return self.rows.to_inputs(g, at)

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
        blocks = [self.rows(i, min(i + TARGET_BLOCK, length)) @ values for i in range(0, length, TARGET_BLOCK)]
        mixed = torch.cat(blocks, 1).transpose(0, 1).reshape(length, heads * values.shape[-1])
        return self.attention.output(mixed, with_bias=with_bias)

    def values(self, x: Float[Tensor, "T D"], *, with_bias: bool) -> Float[Tensor, "H T V"]:
        """Return the values x W_V of every head; heads that share values have the same."""
        values = self.attention.value(x, with_bias=with_bias).view(len(x), self.attention.kv_heads, -1)
        return values.transpose(0, 1).repeat_interleave(self.attention.heads // self.attention.kv_heads, 0)

    def pull(self, g: Float[Tensor, "rows D"], at: ReadoutRows) -> Float[Tensor, "rows_below D"]:
        """Return readouts g of the output turned into readouts of the input, at every position up to their target."""
        return self.through_values(at.pad_heads(g @ self.attention.output.weight.T, self.attention.heads), at)

    def differentiate(
        self, g: Float[Tensor, "rows D"], at: ReadoutRows, x: Float[Tensor, "T D"]
    ) -> Float[Tensor, "rows_below D"]:
        """Return gradients with respect to the real input x, through the values and through the attention weights."""
        dz, below = at.pad_heads(g @ self.attention.output.weight.T, self.attention.heads), at.all_positions()
        values = self.values(x[: at.stop], with_bias=True)
        to_weights = (dz.flatten(1, 2) @ values.mT).view(*dz.shape[:3], at.stop).transpose(0, 1)
        return self.through_values(dz, at) + self.rows.to_inputs(to_weights, at)[below.index]

    def through_values(self, dz: Float[Tensor, "H N P V"], at: ReadoutRows) -> Float[Tensor, "rows_below D"]:
        """Return readouts dz of every head's mixed values turned into readouts of the attention's input."""
        kv_heads, below = self.attention.kv_heads, at.all_positions()
        weights = self.rows(0, at.stop)[..., : at.stop]
        # (H, N, 1, T) or (H, 1, T, T): a readout has its target's row of weights, or all rows shared with the others.
        weights = weights[:, at.last_positions].unsqueeze(2) if at.own else weights.unsqueeze(1)
        dv = (weights.mT @ dz).unflatten(0, (kv_heads, -1)).sum(1)
        return dv.permute(1, 2, 0, 3)[below.index].flatten(1) @ self.attention.value.weight.T

    def holding_rows(self, length: int) -> "FrozenAttention":
        """Return the same operator with its attention weights, of a text of this length, held in memory."""
        return replace(self, rows=KeptRows(self.rows, self.rows(0, length)))

    @property
    def nbytes(self) -> int:
        """Return the bytes held beside the model's own weights."""
        return self.rows.nbytes
