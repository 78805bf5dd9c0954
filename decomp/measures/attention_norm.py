"""Two measures by norms of the vectors that attention moves between positions (Kobayashi et al. 2020, 2021)."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.model import Model
from decomp.measures.maps import heads_of, layers_of, recorded, refuse_heads, scored
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores
from decomp.measures.transformed import AttentionStep, attention_steps, blockwise


def norm_of_sum(step: AttentionStep, targets: range) -> Float[Tensor, "targets T"]:
    """Return ‖Σ_h α^h[i, j] f^h(x_j)‖ of the targets i (Kobayashi et al. 2020)."""
    return step.transformed(targets).norm(dim=-1)


def norm_of_heads(step: AttentionStep, targets: range) -> Float[Tensor, "H targets T"]:
    """Return ‖α^h[i, j] f^h(x_j)‖ of each head h and the targets i (Kobayashi et al. 2020)."""
    outputs = step.attention.output.weight.view(step.attention.heads, -1, step.inputs.shape[-1])
    norms = torch.stack([(v @ o).norm(dim=-1) for v, o in zip(step.values.unbind(1), outputs, strict=True)])
    return step.weights(targets) * norms[:, None]


@torch.no_grad()
def attention_norm(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield norms of weighted value vectors, of each head or of the sum over heads (Kobayashi et al. 2020).

    They are those of the last layer, of each layer, or the mean of the layers' norms.
    """
    rows = norm_of_heads if request.attention.heads == "each" else norm_of_sum
    for text, point in recorded(model, texts, request):
        steps = attention_steps(point)
        compute = blockwise(steps, request.memory, 4 * point.embedding.shape[-1], rows)
        maps = heads_of(layers_of(len(steps), text.targets, request, compute), request)
        yield scored("attention_norm", model, text, point, request, maps)


def norm_with_residual_and_norm(step: AttentionStep, targets: range) -> Float[Tensor, "targets T"]:
    """Return ‖LN(Σ_h α^h[i, j] f^h(x_j) + [j = i] x_i)‖ of the targets i (Kobayashi et al. 2021).

    LN stands for the linear part of the LayerNorm that follows.
    """
    vectors, norm = step.added_and_residual(targets), step.stage.norm
    if norm is not None:
        inverse_std = norm.inverse_std[targets.start : targets.stop, None].expand(vectors.shape[:-1])
        vectors = norm.norm.scale(norm.norm.standardise(vectors, inverse_std), with_bias=False)
    return vectors.norm(dim=-1)


@torch.no_grad()
def attention_norm_resln(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield norms of the vectors that reach a position through attention, residual and norm (Kobayashi et al. 2021).

    In pre-LayerNorm blocks no norm follows the sum; theirs stands before the attention and is part of f.
    """
    refuse_heads("attention_norm_resln", request)
    for text, point in recorded(model, texts, request):
        steps = attention_steps(point)
        compute = blockwise(steps, request.memory, 6 * point.embedding.shape[-1], norm_with_residual_and_norm)
        maps = layers_of(len(steps), text.targets, request, compute)
        yield scored("attention_norm_resln", model, text, point, request, maps)
