"""The operating point: a network whose non-linear parts are frozen at the values of one text's forward pass."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from decomp.core.network import Affine
from decomp.core.operators import FrozenAttention, FrozenMixture, FrozenMLP, FrozenNorm


@dataclass(frozen=True)
class FrozenBranch:
    """One attention, MLP or mixture with its norms, `norm_out(operator(norm_in(x)))`, frozen at one text."""

    operator: FrozenAttention | FrozenMLP | FrozenMixture
    norm_in: FrozenNorm | None = None
    norm_out: FrozenNorm | None = None

    @property
    def attention(self) -> FrozenAttention:
        """Return the operator of a branch that is an attention."""
        assert isinstance(self.operator, FrozenAttention)
        return self.operator

    @property
    def mlp(self) -> FrozenMLP:
        """Return the operator of a branch that is an MLP."""
        assert isinstance(self.operator, FrozenMLP)
        return self.operator

    @property
    def mixture(self) -> FrozenMixture:
        """Return the operator of a branch that is a mixture of experts."""
        assert isinstance(self.operator, FrozenMixture)
        return self.operator

    def normed(self, x: Float[Tensor, "T D"], *, with_bias: bool) -> Float[Tensor, "T D"]:
        """Return the operator's input for a residual stream x: `norm_in(x)`, or x where there is no such norm."""
        return x if self.norm_in is None else self.norm_in.carry(x, with_bias=with_bias)

    def carry(self, x: Float[Tensor, "T D"], *, with_bias: bool) -> Float[Tensor, "T D"]:
        """Return the vectors that the branch adds to the residual stream x, one for each position."""
        y = self.operator.carry(self.normed(x, with_bias=with_bias), with_bias=with_bias)
        return y if self.norm_out is None else self.norm_out.carry(y, with_bias=with_bias)

    @property
    def nbytes(self) -> int:
        """Return the bytes held beside the model's own weights."""
        return self.operator.nbytes + sum(n.nbytes for n in (self.norm_in, self.norm_out) if n is not None)


@dataclass(frozen=True)
class FrozenStage:
    """One step of the residual stream, `norm(x + Σ branch(x))`, frozen at one text."""

    branches: tuple[FrozenBranch, ...]
    norm: FrozenNorm | None = None

    def carry(self, x: Float[Tensor, "T D"], *, with_bias: bool) -> Float[Tensor, "T D"]:
        """Return the residual stream after the stage, one vector for each position."""
        y = x
        for branch in self.branches:
            y = y + branch.carry(x, with_bias=with_bias)
        return y if self.norm is None else self.norm.carry(y, with_bias=with_bias)


def mask_bytes(branches: Iterable[FrozenBranch]) -> int:
    """Return the bytes of the attention masks of some branches; layers that share a mask count it once."""
    masks = [b.attention.rows.mask.untyped_storage() for b in branches if b.operator.mixes_positions]
    return sum({mask.data_ptr(): mask.nbytes() for mask in masks}.values())


FrozenBlock = tuple[FrozenStage, ...]


@dataclass(frozen=True)
class OperatingPoint:
    """The network frozen at one text, with the hidden states of the forward pass that it was frozen at."""

    embedding: Float[Tensor, "T D"]
    """The input of the first block."""
    blocks: tuple[FrozenBlock, ...]
    """The blocks, each a sequence of frozen stages."""
    final_norm: FrozenNorm | None
    """The norm after the last block, frozen; None where there is none."""
    project_out: Affine | None
    """The map from the hidden width to the unembedding's; None where there is none."""
    hidden: Float[Tensor, "T E"]
    """The final hidden states, after the final norm and projection."""
    hidden_layers: tuple[Float[Tensor, "T D"], ...] = ()
    """The hidden states after the embedding and after each block; empty unless every layer was asked for."""

    def __len__(self) -> int:
        return len(self.embedding)

    @property
    def branches(self) -> Iterator[FrozenBranch]:
        """Yield all branches in the order of the network."""
        return (branch for block in self.blocks for stage in block for branch in stage.branches)

    def finish(self, x: Float[Tensor, "T D"], *, with_bias: bool) -> Float[Tensor, "T E"]:
        """Return a residual stream after the final norm and projection."""
        if self.final_norm is not None:
            x = self.final_norm.carry(x, with_bias=with_bias)
        return x if self.project_out is None else self.project_out(x, with_bias=with_bias)

    def carry(self, x: Float[Tensor, "T D"], *, with_bias: bool) -> Iterator[Float[Tensor, "T _"]]:
        """Yield a residual stream x as it is, after each block, and after the final norm and projection.

        The stream x = 0 carried with biases ends as the bias of the decomposition; the embedding carried without biases
        ends as the sum of the contributions of all sources.
        """
        yield x
        for block in self.blocks:
            for stage in block:
                x = stage.carry(x, with_bias=with_bias)
            yield x
        yield self.finish(x, with_bias=with_bias)

    @property
    def nbytes(self) -> int:
        """Return the bytes held beside the model's own weights."""
        states = (self.embedding, self.hidden, *self.hidden_layers)
        held = sum(branch.nbytes for branch in self.branches) + mask_bytes(self.branches)
        return held + sum(t.numel() * t.element_size() for t in states)
