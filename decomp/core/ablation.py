"""Log probabilities of the next token in bits: with the whole hidden state, and without one contribution."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROWS = 1024
"""The number of ablated predictions whose logits are held in memory at a time."""
VOCAB_TILE = 1024
"""The number of vocabulary entries whose logits are held in memory at a time."""


@dataclass(frozen=True)
class Unembedding:
    """The language-model head: logits z = `hidden @ weight.T + bias`, soft-capped to `softcap · tanh(z / softcap)`."""

    weight: Float[Tensor, "V E"]
    """The matrix from final hidden states to logits, one row for each vocabulary entry."""
    bias: Float[Tensor, " V"] | None = None
    """The bias of the logits; None where the head has none."""
    softcap: float | None = None
    """The bound of the logits' absolute values; None where they are not soft-capped."""

    def logits(self, hidden: Float[Tensor, "T E"], vocab: slice = slice(None)) -> Float[Tensor, "T V"]:
        """Return the logits of the vocabulary, or of the entries in the slice `vocab`."""
        logits = self.uncapped(hidden, vocab)
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def uncapped(self, hidden: Float[Tensor, "T E"], vocab: slice = slice(None)) -> Float[Tensor, "T V"]:
        """Return the logits before the soft-cap, linear in the hidden states."""
        logits = hidden @ self.weight[vocab].T
        return logits if self.bias is None else logits + self.bias[vocab]

    def cap_(self, logits: Float[Tensor, "*rows V"]) -> Float[Tensor, "*rows V"]:
        """Apply the soft-cap to logits in place, where the head has one."""
        return logits if self.softcap is None else logits.div_(self.softcap).tanh_().mul_(self.softcap)

    def require_linear(self, what: str) -> None:
        """Raise ValueError, which names `what` needs linear logits, where the head soft-caps them."""
        if self.softcap is not None:
            raise ValueError(
                f"{what} needs logits that are linear in the hidden state, this model's are soft-capped at "
                f"{self.softcap:g}: use delta_lp or a gradient measure"
            )


class RunningLogSumExp:
    """A sum log Σ exp of each row, whose entries come in tiles; it never overflows (Milakov & Gimelshein 2018)."""

    def __init__(self, rows: int, like: Tensor) -> None:
        dtype = torch.promote_types(like.dtype, torch.float32)
        self.maximum = torch.full((rows,), -math.inf, dtype=dtype, device=like.device)
        self.total = torch.zeros(rows, dtype=dtype, device=like.device)

    def add(self, rows: slice, tile: Float[Tensor, "rows V"]) -> None:
        """Add a tile of logits to the sums of exponentials; the tile's content is lost."""
        tile = tile.to(self.total.dtype)
        before, total = self.maximum[rows], self.total[rows]
        maximum = torch.maximum(before, tile.amax(1))
        total *= (before - maximum).exp_()
        total += tile.sub_(maximum[:, None]).exp_().sum(1)
        before.copy_(maximum)

    def value(self) -> Float[Tensor, " rows"]:
        """Return log Σ exp of all tiles added so far, one value for each row."""
        return self.maximum + self.total.log()


def next_log2_prob(
    hidden: Float[Tensor, "T E"], next_ids: Int[Tensor, " T"], unembedding: Unembedding
) -> Float[Tensor, " T"]:
    """Return the log2 probability of each target's next token y, log2 softmax(z[i])[y], in bits."""
    return ablated_log2_prob(
        hidden.new_zeros(len(hidden), hidden.shape[-1]),
        torch.arange(len(hidden), device=hidden.device),
        hidden,
        next_ids,
        unembedding,
    )


def ablated_log2_prob(
    vectors: Float[Tensor, "pairs E"],
    targets: Int[Tensor, " pairs"],
    hidden: Float[Tensor, "T E"],
    next_ids: Int[Tensor, " T"],
    unembedding: Unembedding,
) -> Float[Tensor, " pairs"]:
    """Return the log2 probability of the next token without a vector v, log2 softmax(z[i] − U v)[y], in bits.

    Each row of `vectors` is taken away from the hidden state of its own target i; `targets` must not decrease.
    `ROWS` pairs and `VOCAB_TILE` entries of the vocabulary are in memory at a time; every value is finite.
    """
    total = RunningLogSumExp(len(vectors), vectors)
    if len(vectors) == 0:
        return total.value()
    begin, end = int(targets[0]), int(targets[-1]) + 1
    vocab = len(unembedding.weight)
    buffer = vectors.new_empty(min(ROWS, len(vectors)) * min(VOCAB_TILE, vocab))
    for start in range(0, vocab, VOCAB_TILE):
        tile = slice(start, min(start + VOCAB_TILE, vocab))
        plain = unembedding.uncapped(hidden[begin:end], tile)
        for first in range(0, len(vectors), ROWS):
            rows = slice(first, min(first + ROWS, len(vectors)))
            ablated = buffer[: (rows.stop - first) * plain.shape[1]].view(-1, plain.shape[1])
            torch.index_select(plain, 0, targets[rows] - begin, out=ablated)
            ablated.addmm_(vectors[rows], unembedding.weight[tile].T, alpha=-1)
            total.add(rows, unembedding.cap_(ablated))
    return (target_logit(vectors, targets, hidden, next_ids, unembedding) - total.value()) / math.log(2)


def target_logit(
    vectors: Float[Tensor, "pairs E"],
    targets: Int[Tensor, " pairs"],
    hidden: Float[Tensor, "T E"],
    next_ids: Int[Tensor, " T"],
    unembedding: Unembedding,
) -> Float[Tensor, " pairs"]:
    """Return the logit of the next token without each vector, which is taken away from its target's hidden state."""
    dtype = torch.promote_types(vectors.dtype, torch.float32)
    logits = vectors.new_empty(len(vectors), dtype=dtype)
    for logit, rows, places in zip(logits.split(ROWS), vectors.split(ROWS), targets.split(ROWS), strict=True):
        ids = next_ids[places]
        torch.linalg.vecdot((hidden[places] - rows).to(dtype), unembedding.weight[ids].to(dtype), out=logit)
        if unembedding.bias is not None:
            logit += unembedding.bias[ids]
    return unembedding.cap_(logits)
