"""Transformed vectors: the vector that attention moves from each position to each other one in a layer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.network import Attention
from decomp.core.operating_point import FrozenBranch, FrozenStage, OperatingPoint
from decomp.measures.maps import LayerMap

StepRows = Callable[["AttentionStep", range], Float[Tensor, "*H targets T"]]
"""A function of a layer's attention and a range of targets that returns these targets' rows of the layer's map."""


@dataclass(frozen=True)
class AttentionStep:
    """The attention of one block on one text, with the residual stream that it reads."""

    layer: int
    """The number of the block, from 0."""
    stage: FrozenStage
    """The frozen stage that holds the attention."""
    inputs: Float[Tensor, "T D"]
    """The residual stream that the stage reads."""

    @property
    def branch(self) -> FrozenBranch:
        """Return the attention with the norms before and after it."""
        return self.stage.branches[0]

    @property
    def attention(self) -> Attention:
        """Return the attention's projections."""
        return self.branch.attention.attention

    def weights(self, targets: range) -> Float[Tensor, "H targets T"]:
        """Return the attention weights of a range of targets on all positions."""
        weights = self.branch.attention.rows(targets.start, targets.stop)
        return torch.nn.functional.pad(weights, (0, len(self.inputs) - weights.shape[-1]))

    @cached_property
    def values(self) -> Float[Tensor, "T H V"]:
        """Return x_j W_V + b_V of each head, where x is the stream after the norm before the attention."""
        x = self.branch.normed(self.inputs, with_bias=True)
        return self.branch.attention.values(x, with_bias=True).transpose(0, 1)

    def transformed(self, targets: range) -> Float[Tensor, "targets T D"]:
        """Return Σ_h α^h[i, j] f^h(x_j) with f^h(x) = (x W_V^h + b_V^h) W_O^h (Kobayashi et al. 2020, eq. 5)."""
        weighted = self.weights(targets).permute(1, 2, 0)[..., None] * self.values
        return weighted.flatten(2) @ self.attention.output.weight

    def added(self, targets: range) -> Float[Tensor, "targets T D"]:
        """Return the transformed vectors as they are added to the residual stream: after the frozen norm, if any."""
        vectors, norm_out = self.transformed(targets), self.branch.norm_out
        if norm_out is None:
            return vectors
        inverse_std = norm_out.inverse_std[targets.start : targets.stop, None].expand(vectors.shape[:-1])
        return norm_out.norm.scale(norm_out.norm.standardise(vectors, inverse_std), with_bias=False)

    def added_and_residual(self, targets: range) -> Float[Tensor, "targets T D"]:
        """Return the added vectors, with the residual x_i where j = i (Kobayashi et al. 2021, eq. 9).

        Ferrando et al. (2022) call them T_i(x_j).
        """
        vectors = self.added(targets)
        places = torch.arange(len(targets), device=vectors.device)
        vectors[places, places + targets.start] += self.inputs[targets.start : targets.stop]
        return vectors

    @cached_property
    def output(self) -> Float[Tensor, "T D"]:
        """Return the attention's output, its bias b_O included, before any norm after it."""
        operator = self.branch.operator
        return operator.carry(self.branch.normed(self.inputs, with_bias=True), with_bias=True)

    @cached_property
    def total(self) -> Float[Tensor, "T D"]:
        """Return the residual stream plus what the attention adds to it, before any norm of the sum."""
        return self.inputs + self.branch.carry(self.inputs, with_bias=True)


def attention_steps(point: OperatingPoint) -> list[AttentionStep]:
    """Return the attention of each block, from an operating point that has the hidden states of every layer.

    ValueError for a block that does not begin with an attention.
    """
    steps = []
    for layer, (block, inputs) in enumerate(zip(point.blocks, point.hidden_layers[:-1], strict=True)):
        if not block[0].branches[0].operator.mixes_positions:
            raise ValueError(f"layer {layer} of this model does not begin with attention, which this measure needs")
        steps.append(AttentionStep(layer, block[0], inputs))
    return steps


def blockwise(steps: Sequence[AttentionStep], memory: int, numbers: int, rows: StepRows) -> LayerMap:
    """Return a function that computes a layer's map for as many targets at a time as fit into `memory` bytes.

    `numbers` is how many numbers are held for each (target, source) pair. Rows of targets not asked for are zero.
    """

    def compute(layer: int, targets: range) -> Tensor:
        step, length = steps[layer], len(steps[layer].inputs)
        bytes_each = numbers * length * step.inputs.element_size()
        blocks = target_blocks(targets, bytes_each, memory)
        parts = torch.cat([rows(step, block) for block in blocks], -2)
        whole = parts.new_zeros(*parts.shape[:-2], length, length)
        whole[..., targets.start : targets.stop, :] = parts
        return whole

    return compute


def target_blocks(targets: range, bytes_each: int, memory: int) -> Iterator[range]:
    """Yield ranges of targets that fit into `memory` bytes, of at least one target; for no targets one empty range."""
    step = max(1, memory // bytes_each)
    return (targets[i : i + step] for i in range(0, max(1, len(targets)), step))
