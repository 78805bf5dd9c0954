"""Transformed vectors: what each position gives to each other one in the attention of one layer."""

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
"""A function that gives some targets' rows of one layer's map."""


@dataclass(frozen=True)
class AttentionStep:
    """The attention of one block on one text, and the residual stream that its stage is given."""

    layer: int
    stage: FrozenStage
    inputs: Float[Tensor, "T D"]

    @property
    def branch(self) -> FrozenBranch:
        """Return the attention with the norms around it."""
        return self.stage.branches[0]

    @property
    def attention(self) -> Attention:
        """Return the attention's projections."""
        return self.branch.attention.attention

    def weights(self, targets: range) -> Float[Tensor, "H targets T"]:
        """Return the attention weights of some targets."""
        return self.branch.attention.rows(targets.start, targets.stop)

    @cached_property
    def values(self) -> Float[Tensor, "T H V"]:
        """Return x_j W_V + b_V of each head, x after the norm before."""
        x = self.branch.normed(self.inputs, with_bias=True)
        return self.branch.attention.values(x, with_bias=True).transpose(0, 1)

    def transformed(self, targets: range) -> Float[Tensor, "targets T D"]:
        """Return Σ_h α^h[i, j] f^h(x_j), f^h(x) = (x W_V^h + b_V^h) W_O^h (Kobayashi et al. 2020, eq. 5), no b_O."""
        weighted = self.weights(targets).permute(1, 2, 0)[..., None] * self.values
        return weighted.flatten(2) @ self.attention.output.weight

    def added(self, targets: range) -> Float[Tensor, "targets T D"]:
        """Return what the transformed vectors add to the residual stream: through the frozen norm after, if any."""
        vectors, norm_out = self.transformed(targets), self.branch.norm_out
        if norm_out is None:
            return vectors
        inverse_std = norm_out.inverse_std[targets.start : targets.stop, None].expand(vectors.shape[:-1])
        return norm_out.norm.scale(norm_out.norm.standardise(vectors, inverse_std), with_bias=False)

    def added_and_residual(self, targets: range) -> Float[Tensor, "targets T D"]:
        """Return what is added, with the residual x_i where j = i (Kobayashi et al. 2021, eq. 9).

        These are the T_i(x_j) of Ferrando et al. (2022).
        """
        vectors = self.added(targets)
        places = torch.arange(len(targets), device=vectors.device)
        vectors[places, places + targets.start] += self.inputs[targets.start : targets.stop]
        return vectors

    @cached_property
    def output(self) -> Float[Tensor, "T D"]:
        """Return the attention's output, b_O included, before any norm after it."""
        operator = self.branch.operator
        return operator.carry(self.branch.normed(self.inputs, with_bias=True), with_bias=True)

    @cached_property
    def total(self) -> Float[Tensor, "T D"]:
        """Return the sum of the residual stream and what the attention adds to it, before any norm of the sum."""
        return self.inputs + self.branch.carry(self.inputs, with_bias=True)


def attention_steps(point: OperatingPoint) -> list[AttentionStep]:
    """Return the attention of each block, from an operating point with every layer.

    ValueError for a block that does not begin with one.
    """
    steps = []
    for layer, (block, inputs) in enumerate(zip(point.blocks, point.hidden_layers[:-1], strict=True)):
        if not block[0].branches[0].operator.mixes_positions:
            raise ValueError(f"layer {layer} of this model does not begin with attention, which this measure needs")
        steps.append(AttentionStep(layer, block[0], inputs))
    return steps


def blockwise(steps: Sequence[AttentionStep], memory: int, numbers: int, rows: StepRows) -> LayerMap:
    """Return maps computed for some targets at a time: as many as hold `numbers` per pair within `memory` bytes.

    Rows of targets that nobody asked for are zero.
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
    """Yield runs of targets whose buffers fit into `memory` bytes, at least one target each; one empty run of none."""
    step = max(1, memory // bytes_each)
    return (targets[i : i + step] for i in range(0, max(1, len(targets)), step))
