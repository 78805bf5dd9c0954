"""Transformed vectors: what each position gives to each other one in one attention sublayer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.rules import AttentionMaps, FrozenSublayer, Network, OperatingPoint, Sublayer, sublayer_output
from decomp.measures.maps import LayerMap

StepRows = Callable[["AttentionStep", range], Float[Tensor, "*H targets T"]]
"""Rows of one layer's map for a run of targets."""


@dataclass(frozen=True)
class AttentionStep:
    """The attention sublayer of one block on one text, and the states that it is given."""

    layer: int
    sublayer: Sublayer
    frozen: FrozenSublayer
    inputs: Float[Tensor, "T D"]

    @property
    def maps(self) -> AttentionMaps:
        assert isinstance(self.sublayer.maps, AttentionMaps)
        return self.sublayer.maps

    def weights(self, targets: range) -> Float[Tensor, "H targets T"]:
        assert self.frozen.attention is not None
        return self.frozen.attention(targets.start, targets.stop)

    @cached_property
    def values(self) -> Float[Tensor, "T H V"]:
        """x_j W_V + b_V of each head, x after the norm before."""
        x = self.inputs
        if self.sublayer.norm_before is not None:
            assert self.frozen.inverse_std_before is not None
            x = self.sublayer.norm_before(x, self.frozen.inverse_std_before, affine=True)
        return self.maps.value(x, affine=True).view(len(x), self.maps.heads, -1)

    def transformed(self, targets: range) -> Float[Tensor, "targets T D"]:
        """Σ_h α^h[i, j] f^h(x_j), f^h(x) = (x W_V^h + b_V^h) W_O^h (Kobayashi et al. 2020, eq. 5), b_O left out."""
        weighted = self.weights(targets).permute(1, 2, 0)[..., None] * self.values
        return weighted.flatten(2) @ self.maps.output.weight

    def transformed_and_residual(self, targets: range) -> Float[Tensor, "targets T D"]:
        """The same, and the residual x_i for j = i (Kobayashi et al. 2021, eq. 9; T_i(x_j) of Ferrando et al. 2022)."""
        vectors = self.transformed(targets)
        places = torch.arange(len(targets), device=vectors.device)
        vectors[places, places + targets.start] += self.inputs[targets.start : targets.stop]
        return vectors

    @cached_property
    def total(self) -> Float[Tensor, "T D"]:
        """Residual and attention output, before any norm after."""
        return self.inputs + sublayer_output(self.inputs, self.sublayer, self.frozen, affine=True)


def attention_steps(network: Network, point: OperatingPoint) -> list[AttentionStep]:
    """Of each block, from an operating point with every layer. ValueError for a block that does not begin with one."""
    steps = []
    for layer, (block, frozen, inputs) in enumerate(
        zip(network.blocks, point.blocks, point.hidden_layers[:-1], strict=True)
    ):
        if not isinstance(block[0].maps, AttentionMaps):
            raise ValueError(f"layer {layer} of this model does not begin with attention, which this measure needs")
        steps.append(AttentionStep(layer, block[0], frozen[0], inputs))
    return steps


def blockwise(steps: Sequence[AttentionStep], memory: int, numbers: int, rows: StepRows) -> LayerMap:
    """Maps computed for some targets at a time: as many as hold `numbers` per pair within `memory` bytes.

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
    """Runs of targets whose buffers fit into `memory` bytes, at least one target each; one empty run of no targets."""
    step = max(1, memory // bytes_each)
    return (targets[i : i + step] for i in range(0, max(1, len(targets)), step))
