"""ΔLP: the change of the next token's log2 probability when one source is taken away (Oh & Schuler 2023)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from decomp.ablation import ablated_log2_prob, next_log2_prob
from decomp.decomposition import remainder_of
from decomp.engine import Chunk, propagate
from decomp.propagation import ActivationRule, OperatingPoint, propagate_stream
from decomp.tables import Scores


@dataclass(frozen=True)
class Request:
    """What every measure is asked with."""

    decomposition_length: int | None = None
    activation_rule: ActivationRule = "tangent"
    memory: int = 2**30
    extra: bool = False
    """Score `<bias>` and `<remainder>` too."""


Measure = Callable[[Any, Sequence[Int[Tensor, " T"]], Sequence[int], Request], list[Scores]]
"""From a decomposed model, texts, the first target to score of each, and the request."""


@torch.no_grad()
def delta_lp(
    model: Any, texts: Sequence[Int[Tensor, " T"]], first_targets: Sequence[int], request: Request
) -> list[Scores]:
    """ΔLP of every (target, source) in bits, contributions consumed as they come (Oh & Schuler 2023)."""
    points = [model.record(ids, activation_rule=request.activation_rule) for ids in texts]
    unembedding = model.unembedding()
    length = request.decomposition_length or max(map(len, points))
    plain = [next_log2_prob(p.hidden[:-1], ids[1:], unembedding) for p, ids in zip(points, texts, strict=True)]
    scores = [p.new_zeros(len(p), len(p) + 1) for p in plain]
    kept = [torch.zeros_like(p.hidden) for p in points] if request.extra else []

    def take(chunk: Chunk) -> None:
        targets, sources = chunk.pairs()
        if request.extra:
            kept[chunk.text].index_add_(0, targets, chunk.rows)
        # Targets rise along the rows: those before the first scored one come first, the last predicts nothing.
        first, last = torch.searchsorted(targets, torch.tensor([first_targets[chunk.text], len(texts[chunk.text]) - 1]))
        targets, sources, vectors = targets[first:last], sources[first:last], chunk.rows[first:last]
        if len(targets):
            ablated = ablated_log2_prob(vectors, targets, points[chunk.text].hidden, texts[chunk.text][1:], unembedding)
            scores[chunk.text][targets, sources] = plain[chunk.text][targets] - ablated

    for chunk in propagate(model.folded(), points, length, request.memory):
        take(chunk)

    def extra(text: int, point: OperatingPoint) -> dict[str, Tensor]:
        if not request.extra:
            return {}
        *_, bias = propagate_stream(torch.zeros_like(point.embedding), model.network(), point, affine=True)
        *_, total = propagate_stream(point.embedding, model.network(), point, affine=False)
        every = torch.arange(len(point) - 1, device=bias.device)
        vectors = {"<bias>": bias, "<remainder>": remainder_of(total, kept[text], length)}
        return {
            name: plain[text] - ablated_log2_prob(v[:-1], every, point.hidden, texts[text][1:], unembedding)
            for name, v in vectors.items()
        }

    return [
        Scores("delta_lp", first, length, log2_prob, matrix, extra(text, point))
        for text, (first, log2_prob, matrix, point) in enumerate(zip(first_targets, plain, scores, points, strict=True))
    ]
