"""Turning a map of each layer, token by token, into scores: the last layer's, a mean, or a rollout over layers."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.ablation import next_log2_prob
from decomp.core.model import Model
from decomp.core.operating_point import OperatingPoint
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores

LayerMap = Callable[[int, range], Float[Tensor, "*H T T"]]
"""A function of a layer and a range of targets that returns the layer's map; rows of other targets are undefined."""


def recorded(model: Model, texts: Sequence[Text], request: Request) -> Iterator[tuple[Text, OperatingPoint]]:
    """Yield each text with its operating point, the hidden states of every layer included.

    ValueError for a model that does not record its attention weights.
    """
    if not hasattr(model, "record"):
        raise ValueError(
            f"a {type(model).__name__} does not record the attention weights that this measure needs: "
            "load the model with decomp.load_model"
        )
    for text in texts:
        yield text, model.record(text.ids, rules=request.rules, output_layers=True)


def layers_of(count: int, targets: range, request: Request, compute: LayerMap) -> dict[str, Float[Tensor, "*H T T"]]:
    """Return maps by label: that of the last layer, the mean over layers, or every layer's, as the request says."""
    layers = request.attention.layers
    if layers == "last":
        return {str(count - 1): compute(count - 1, targets)}
    maps = (compute(layer, targets) for layer in range(count))
    return {"mean": mean(maps, count)} if layers == "mean" else {str(layer): m for layer, m in enumerate(maps)}


def mean(maps: Iterable[Tensor], count: int) -> Tensor:
    """Return the mean of `count` maps, of which one at a time is in memory."""
    total, *rest = (m / count for m in maps)
    for m in rest:
        total += m
    return total


def heads_of(maps: Mapping[str, Float[Tensor, "*H T T"]], request: Request) -> Mapping[str, Float[Tensor, "T T"]]:
    """Return the map of each head, labelled `layer.head`, if the request asks for heads one by one."""
    if request.attention.heads == "mean":
        return maps
    return {f"{label}.{head}": one for label, m in maps.items() for head, one in enumerate(m)}


def refuse_heads(measure: str, request: Request) -> None:
    """Raise ValueError where a request asks for heads one by one of a measure that has no scores of heads."""
    if request.attention.heads == "each":
        raise ValueError(f"{measure} takes all heads of a layer together: ask for it without --heads each")


def scored(
    measure: str,
    model: Model,
    text: Text,
    point: OperatingPoint,
    request: Request,
    maps: Mapping[str, Float[Tensor, "T T"]],
) -> list[Scores]:
    """Return the scores of each map, named `measure[label]`, or `measure` for the default request."""
    log2_prob = next_log2_prob(point.hidden[:-1], text.ids[1:], model.unembedding())
    plain = request.attention.layers == "last" and request.attention.heads == "mean"
    return [
        Scores(measure if plain else f"{measure}[{label}]", text.targets, len(point), log2_prob, m[:-1], {})
        for label, m in maps.items()
    ]


def normalise_rows(scores: Float[Tensor, "T T"]) -> Float[Tensor, "T T"]:
    """Return rows divided by their sums; a row of zeros becomes 1 for the target itself."""
    total = scores.sum(-1, keepdim=True)
    itself = torch.eye(len(scores), dtype=scores.dtype, device=scores.device)
    return torch.where(total > 0, scores / total.where(total > 0, 1), itself)


def rollout(maps: Iterable[Float[Tensor, "T T"]]) -> Iterator[Float[Tensor, "T T"]]:
    """Yield the rollout M^l = C^l · … · C^1 after each layer l (Abnar & Zuidema 2020, eq. 1)."""
    through = None
    for m in maps:
        through = m if through is None else m @ through
        yield through


def rollouts_of(maps: Iterable[Float[Tensor, "T T"]], targets: range, request: Request) -> dict[str, Tensor]:
    """Return rollouts by label: through all layers, the mean of those through 1, 2, … layers, or each of these."""
    every = list(rollout(maps))
    return layers_of(len(every), targets, request, lambda layer, _: every[layer])
