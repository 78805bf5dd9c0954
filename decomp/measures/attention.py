"""Two measures by attention weights: the weights themselves, and attention rollout, their product over layers."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.model import Model
from decomp.measures.maps import (
    LayerMap,
    heads_of,
    layers_of,
    normalise_rows,
    recorded,
    refuse_heads,
    rollouts_of,
    scored,
)
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores
from decomp.measures.transformed import AttentionStep, attention_steps, blockwise


def mean_over_heads(step: AttentionStep, targets: range) -> Float[Tensor, "targets T"]:
    """Return one layer's attention weights of some targets, averaged over heads."""
    return step.weights(targets).mean(0)


def weight_maps(steps: Sequence[AttentionStep], memory: int, every_head: bool) -> LayerMap:
    """Return a function that gives each layer's attention weights A^h[i, j], or with `every_head` false their mean."""
    # The model's own attention function holds scores, masked scores and weights at once.
    numbers = 4 * steps[0].attention.heads
    return blockwise(steps, memory, numbers, AttentionStep.weights if every_head else mean_over_heads)


@torch.no_grad()
def attention(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield attention weights (Vaswani et al. 2017) of the last layer, of each layer, or their mean over layers.

    Heads are averaged, or scored one by one, as the request says.
    """
    for text, point in recorded(model, texts, request):
        steps = attention_steps(point)
        weights = weight_maps(steps, request.memory, request.attention.heads == "each")
        maps = heads_of(layers_of(len(steps), text.targets, request, weights), request)
        yield scored("attention", model, text, point, request, maps)


def with_residual(weights: Float[Tensor, "T T"]) -> Float[Tensor, "T T"]:
    """Return (W + I) / 2, where W is the mean over heads, so that rows sum to 1 (Abnar & Zuidema 2020, section 3)."""
    return normalise_rows(weights + torch.eye(len(weights), dtype=weights.dtype, device=weights.device))


@torch.no_grad()
def attention_rollout(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield attention rollout: products of layers' attention weights with residuals (Abnar & Zuidema 2020, eq. 1)."""
    refuse_heads("attention_rollout", request)
    for text, point in recorded(model, texts, request):
        steps = attention_steps(point)
        weights = weight_maps(steps, request.memory, every_head=False)
        maps = (with_residual(weights(layer, range(len(point)))) for layer in range(len(steps)))
        yield scored("attention_rollout", model, text, point, request, rollouts_of(maps, text.targets, request))
