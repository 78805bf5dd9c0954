"""Value zeroing: the change of direction of a layer's output when a token's values are zero (Mohebbi et al. 2023)."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.model import Model
from decomp.core.operating_point import OperatingPoint
from decomp.measures.maps import LayerMap, layers_of, normalise_rows, recorded, refuse_heads, rollouts_of, scored
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores
from decomp.measures.transformed import AttentionStep, attention_steps, blockwise


def cosine_distance(x: Float[Tensor, "*rows D"], y: Float[Tensor, "*rows D"]) -> Float[Tensor, " *rows"]:
    """Return 1 − cos(x, y), as half the squared distance of the unit vectors, which is accurate for small angles."""
    unit = torch.nn.functional.normalize
    return (unit(x, dim=-1) - unit(y, dim=-1)).square().sum(-1) / 2


def zeroed_rows(model: Model, step: AttentionStep, targets: range, final_norm: bool) -> Float[Tensor, "targets T"]:
    """Return 1 − cos of a block's outputs with and without the values of j in all heads (Mohebbi et al. 2023, eq. 4).

    The block's input is the model's own. Outputs are compared before the final norm, or with `final_norm` after it.
    """
    place = slice(targets.start, targets.stop)
    inputs, whole = step.inputs[place], step.output[place]
    zeroed = whole[:, None] - step.transformed(targets)[:, : targets.stop]
    changed = model.after_attention(step.layer, inputs[:, None].expand_as(zeroed), zeroed)
    plain = model.after_attention(step.layer, inputs, whole)
    if final_norm and step.layer == len(model.network().blocks) - 1:
        changed, plain = model.read_out(changed), model.read_out(plain)
    distance = cosine_distance(changed, plain[:, None])
    rows = distance.new_zeros(len(targets), len(step.inputs))
    rows[:, : targets.stop] = distance
    # Later sources change nothing; computed in other company, the same vector may be rounded otherwise.
    return rows.tril(targets.start)


def zeroing_maps(model: Model, point: OperatingPoint, request: Request) -> LayerMap:
    """Return a function that gives the rows of each layer's map, which sum to 1."""
    network, final_norm = model.network(), request.attention.final_norm
    numbers = 6 * point.embedding.shape[-1] + (network.inputs + 1) * network.neurons
    compute = blockwise(
        attention_steps(point), request.memory, numbers, lambda step, at: zeroed_rows(model, step, at, final_norm)
    )
    return lambda layer, targets: normalise_rows(compute(layer, targets))


@torch.no_grad()
def value_zeroing(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield value zeroing in the last layer, in each layer, or its mean over layers (Mohebbi et al. 2023)."""
    refuse_heads("value_zeroing", request)
    for text, point in recorded(model, texts, request):
        maps = layers_of(len(point.blocks), text.targets, request, zeroing_maps(model, point, request))
        yield scored("value_zeroing", model, text, point, request, maps)


@torch.no_grad()
def value_zeroing_rollout(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield products of the layers' maps of value zeroing, which include residuals (Mohebbi et al. 2023, section 3)."""
    refuse_heads("value_zeroing_rollout", request)
    for text, point in recorded(model, texts, request):
        zeroing, every = zeroing_maps(model, point, request), range(len(point))
        maps = (zeroing(layer, every) for layer in range(len(point.blocks)))
        yield scored("value_zeroing_rollout", model, text, point, request, rollouts_of(maps, text.targets, request))
