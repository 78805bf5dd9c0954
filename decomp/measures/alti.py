"""ALTI-Logit: what each layer's attention adds to a logit, tracked to the input tokens (Ferrando et al. 2023)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.ablation import Unembedding, next_log2_prob
from decomp.core.rules import (
    AttentionMaps,
    FrozenSublayer,
    Network,
    Norm,
    OperatingPoint,
    Sublayer,
    normalise_after,
    sublayer_output,
)
from decomp.measures.maps import normalise_rows, recorded
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores
from decomp.measures.transformed import AttentionStep, attention_steps, blockwise


def alti_rows(step: AttentionStep, targets: range) -> Float[Tensor, "targets T"]:
    """max(0, ‖y_i‖_1 − ‖y_i − T_i(x_j)‖_1), y_i the sum of residual and attention output (Ferrando et al. 2022)."""
    whole = step.total[targets.start : targets.stop]
    rest = (whole[:, None] - step.transformed_and_residual(targets)).abs().sum(-1)
    return (whole.abs().sum(-1, keepdim=True) - rest).clamp(min=0)


def transpose_norm(norm: Norm, g: Float[Tensor, "T D"], inverse_std: Float[Tensor, " T"]) -> Float[Tensor, "T D"]:
    """The transpose of a frozen norm's linear part."""
    g = g * inverse_std[:, None]
    if norm.weight is not None:
        g = g * norm.weight
    return g - g.mean(-1, keepdim=True) if norm.centred else g


@dataclass(frozen=True)
class Reader:
    """What the end of the network reads of one sublayer's output, on the direct path: residuals and norms alone."""

    sublayer: Sublayer
    frozen: FrozenSublayer
    output: Float[Tensor, "T D"]
    """Of the sum of residual and output."""
    after: Float[Tensor, "T D"]
    """Of the same after the norm after."""


def readers(network: Network, point: OperatingPoint, g: Float[Tensor, "T D"]) -> list[list[Reader]]:
    """Of each block's sublayers, from what is read of the last block's output."""
    found: list[list[Reader]] = []
    for block, frozen_block in zip(reversed(network.blocks), reversed(point.blocks), strict=True):
        found.append([])
        for sublayer, frozen in zip(reversed(block), reversed(frozen_block), strict=True):
            after = g
            if sublayer.norm_after is not None:
                assert frozen.inverse_std_after is not None
                g = transpose_norm(sublayer.norm_after, g, frozen.inverse_std_after)
            found[-1].insert(0, Reader(sublayer, frozen, g, after))
    return found[::-1]


def read_at_the_end(
    network: Network, point: OperatingPoint, direction: Float[Tensor, "T E"]
) -> tuple[Float[Tensor, "T D"], Float[Tensor, " T"]]:
    """What the direction reads of the last block's output, and of the constants after it."""
    g, constant = direction, direction.new_zeros(len(direction))
    if network.project_out is not None:
        if network.project_out.bias is not None:
            constant = constant + g @ network.project_out.bias
        g = g @ network.project_out.weight.T
    if network.final_norm is not None:
        assert point.final_inverse_std is not None
        if network.final_norm.bias is not None:
            constant = constant + g @ network.final_norm.bias
        g = transpose_norm(network.final_norm, g, point.final_inverse_std)
    return g, constant


def attention_logits(step: AttentionStep, read: Float[Tensor, "T D"], targets: range) -> Float[Tensor, "targets T"]:
    """Δlogit at i of each x_j: Σ_h α^h[i, j] f^h(x_j) · g_i (Ferrando et al. 2023, section 3.2)."""
    heads = (read[targets.start : targets.stop] @ step.maps.output.weight.T).view(len(targets), step.maps.heads, -1)
    return (step.weights(targets) * (heads.transpose(0, 1) @ step.values.permute(1, 2, 0))).sum(0)


def constants_read(reader: Reader) -> Float[Tensor, " T"]:
    """Of the attention's output bias and the shift of the norm after; an MLP's bias is part of its output."""
    constant = reader.output.new_zeros(len(reader.output))
    maps, norm_after = reader.sublayer.maps, reader.sublayer.norm_after
    if isinstance(maps, AttentionMaps) and maps.output.bias is not None:
        constant = constant + reader.output @ maps.output.bias
    if norm_after is not None and norm_after.bias is not None:
        constant = constant + reader.after @ norm_after.bias
    return constant


def mlp_logits(step: AttentionStep, mlps: Sequence[Reader]) -> Float[Tensor, " T"]:
    """What is read of the outputs of a block's MLPs."""
    x = normalise_after(step.total, step.sublayer, step.frozen, affine=True)
    logit = x.new_zeros(len(x))
    for mlp in mlps:
        output = sublayer_output(x, mlp.sublayer, mlp.frozen, affine=True)
        logit += (output * mlp.output).sum(-1)
        x = normalise_after(x + output, mlp.sublayer, mlp.frozen, affine=True)
    return logit


def alti_logit_of(
    network: Network, point: OperatingPoint, direction: Float[Tensor, "T E"], memory: int
) -> tuple[Float[Tensor, "T T"], dict[str, Float[Tensor, " T"]]]:
    """Σ_l Δlogit^l M^(l−1), M^l = C^l · … · C^1 (Ferrando et al. 2023, section 3.3), and the parts it leaves out.

    Together they are the direction's product with the final hidden states.
    """
    g, constant = read_at_the_end(network, point, direction)
    every, steps = readers(network, point, g), attention_steps(network, point)
    contributions = blockwise(steps, memory, 6 * g.shape[-1], alti_rows)
    reads = [attention.output for attention, *_ in every]
    logits = blockwise(
        steps, memory, 6 * steps[0].maps.heads, lambda step, targets: attention_logits(step, reads[step.layer], targets)
    )
    positions = range(len(point))
    mixing = torch.eye(len(point), dtype=g.dtype, device=g.device)
    scores, mlp = torch.zeros_like(mixing), torch.zeros_like(constant)
    for step, (attention, *mlps) in zip(steps, every, strict=True):
        scores += logits(step.layer, positions) @ mixing
        mlp += mlp_logits(step, mlps)
        constant = constant + sum(constants_read(reader) for reader in (attention, *mlps))
        if step is not steps[-1]:
            mixing = normalise_rows(contributions(step.layer, positions)) @ mixing
    embedding = (point.embedding * every[0][0].output).sum(-1)
    return scores, {"<embedding>": embedding, "<mlp>": mlp, "<bias>": constant}


def logit_direction(
    text: Text, function: str | None, unembedding: Unembedding
) -> tuple[Float[Tensor, "T E"], Float[Tensor, " T"]]:
    """The row of the unembedding, or difference of rows, that a logit function reads by, and its head bias.

    Zero for the last target, which predicts nothing.
    """
    bias = unembedding.weight.new_zeros(len(unembedding.weight)) if unembedding.bias is None else unembedding.bias
    direction, constant = unembedding.weight[text.ids[1:]], bias[text.ids[1:]]
    if function != "logit":
        assert text.foils is not None
        direction, constant = direction - unembedding.weight[text.foils], constant - bias[text.foils]
    scale = 1 / math.log(2) if function == "contrast_log2_prob" else 1.0
    return torch.nn.functional.pad(direction * scale, (0, 0, 0, 1)), torch.nn.functional.pad(constant * scale, (0, 1))


@torch.no_grad()
def alti_logit(model: Any, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """What the attention of all layers adds to a logit by way of each source (Ferrando et al. 2023).

    With `<embedding>`, `<mlp>`, `<bias>` and `<remainder>` the scores of a target sum to its logit (or difference).
    """
    for text, point in recorded(model, texts, request):
        unembedding = model.unembedding()
        direction, head_bias = logit_direction(text, request.function, unembedding)
        scores, extra = alti_logit_of(model.network(), point, direction, request.memory)
        extra["<bias>"] = extra["<bias>"] + head_bias
        log2_prob = next_log2_prob(point.hidden[:-1], text.ids[1:], unembedding)
        parts = {name: part[:-1] for name, part in extra.items()}
        yield [Scores("alti_logit", text.targets, len(point), log2_prob, scores[:-1], parts)]
