"""Perturbation curves: the loss of a prediction without the sources ranked first, and without all others."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.measures.functions import AttributedFunction
from decomp.measures.occlusion import function_values, hidden_without, texts_at_once

FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)
"""The fractions of sources that are removed or kept, the bins of DeYoung et al. 2020."""
METRICS = ("comprehensiveness", "sufficiency")


def rank_sources(scores: Float[Tensor, " S"]) -> Int[Tensor, " S"]:
    """Return the sources by decreasing score; of equal scores, the older source first."""
    return scores.argsort(descending=True, stable=True)


def top_sizes(count: int, fractions: Sequence[float] = FRACTIONS) -> list[int]:
    """Return the number of sources, of `count` ≥ 2, that each fraction is: at least one, and at most all but one."""
    return [min(max(1, math.ceil(round(fraction * count, 9))), count - 1) for fraction in fractions]


def removals(ranking: Int[Tensor, " S"], sizes: Sequence[int]) -> dict[str, Bool[Tensor, "bins S"]]:
    """Return the sources that each metric removes in each bin: those ranked first, or all others."""
    place = torch.empty_like(ranking)
    place[ranking] = torch.arange(len(ranking), device=ranking.device)
    first = place < torch.tensor(sizes, device=ranking.device)[:, None]
    return dict(zip(METRICS, (first, ~first), strict=True))


def aopc(curve: Float[Tensor, "*N bins"]) -> Float[Tensor, "*N"]:
    """Return the area over the perturbation curve: its mean over the bins (DeYoung et al. 2020)."""
    return curve.mean(-1)


def values_without(
    model: Model,
    ids: Int[Tensor, " S"],
    next_id: Int[Tensor, ""],
    removed: Bool[Tensor, "R S"],
    replacement: str | int,
    function: AttributedFunction,
    memory: int,
) -> Float[Tensor, " R"]:
    """Return the attributed function of the prediction after a text's last token, one value for each removal.

    Equal removals are computed once.
    """
    different, places = removed.unique(dim=0, return_inverse=True)
    unembedding = model.unembedding()
    step = texts_at_once(model.network(), len(ids), unembedding.weight.element_size(), memory // 2)
    values = []
    for part in different.split(step):
        hidden, empty = hidden_without(model, ids, part, replacement)
        tokens = next_id.expand(len(part))
        values.append(function_values(hidden[:, -1], empty[:, -1], tokens, None, unembedding, function, memory // 2))
    return torch.cat(values)[places]


@torch.no_grad()
def perturbation_curves(
    model: Model,
    ids: Int[Tensor, " S"],
    next_id: Int[Tensor, ""],
    rankings: Mapping[str, Int[Tensor, " ranked"]],
    replacement: str | int,
    function: AttributedFunction,
    memory: int,
    labels: Int[Tensor, " S"] | None = None,
) -> dict[tuple[str, str], Float[Tensor, " bins"]]:
    """Return the loss of the prediction of `next_id`, by ranking and metric (DeYoung et al. 2020).

    Comprehensiveness is F(x) − F(x without the sources ranked first), sufficiency F(x) − F(these alone), both in the
    unit of the function F. Rankings are of the text's most recent sources; older ones are never removed. `labels`
    gives the source of each token, by default each token is one; all tokens of a source are removed together.
    """
    labels = torch.arange(len(ids), device=ids.device) if labels is None else labels
    begun = int(labels.max()) + 1
    masks = {}
    for name, ranking in rankings.items():
        for metric, removed in removals(ranking, top_sizes(len(ranking))).items():
            masks[name, metric] = torch.nn.functional.pad(removed, (begun - len(ranking), 0))[:, labels]
    nothing = torch.zeros(1, len(ids), dtype=torch.bool, device=ids.device)
    every = torch.cat([nothing, *masks.values()])
    whole, *values = values_without(model, ids, next_id, every, replacement, function, memory).split(
        [1, *map(len, masks.values())]
    )
    return {key: whole - value for key, value in zip(masks, values, strict=True)}


def by_bin(curve: Float[Tensor, "N bins"]) -> dict[str, Float[Tensor, " N"]]:
    """Return the bins of curves by the names of their fractions, and last the area over the curve as `aopc`."""
    return {**dict(zip(map(str, FRACTIONS), curve.unbind(-1), strict=True)), "aopc": aopc(curve)}
