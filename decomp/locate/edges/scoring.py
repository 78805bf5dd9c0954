"""Scores for every edge of the computation graph (Syed et al. 2023; Hanna et al. 2024)."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.locate.edges.batches import Batch, batches, outputs_on
from decomp.locate.edges.behaviour import Setting, find
from decomp.locate.edges.graph import Graph, Outputs, graph_of, streams, vectors
from decomp.locate.edges.passes import UniformMask
from decomp.locate.edges.prompts import PromptPair

Method = Literal["mask_gradient", "eap_ig"]
METHODS: tuple[str, ...] = get_args(Method)


@dataclass(frozen=True)
class EdgeRequest(Setting):
    """How edges are scored.

    `mask_gradient` takes its gradients at one `mask_value`, or as the mean over `samples` + 1 evenly spaced
    values from 0 to 1; `eap_ig` takes them at `samples` embeddings on the way from the ablated to the clean one.
    """

    method: Method = "mask_gradient"
    mask_value: float | None = None
    samples: int | None = None

    def check(self, prompts: Sequence[PromptPair]) -> None:
        """ValueError for unknown names, and for what does not go together."""
        super().check(prompts)
        find("method", self.method, dict.fromkeys(METHODS))
        if (self.mask_value is None) == (self.samples is None):
            raise ValueError("give a mask value or a number of integrated gradient samples, exactly one of the two")
        if self.mask_value is not None and not math.isfinite(self.mask_value):
            raise ValueError(f"the mask value must be a finite number, not {self.mask_value}")
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"the number of integrated gradient samples must be at least 1, not {self.samples}")
        if self.method == "eap_ig" and self.samples is None:
            raise ValueError("eap_ig interpolates inputs, not masks: give integrated gradient samples, no mask value")

    def masks(self) -> list[float]:
        """The mask values at which gradients are taken."""
        if self.samples is None:
            assert self.mask_value is not None
            return [self.mask_value]
        return [sample / self.samples for sample in range(self.samples + 1)]


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """∂L/∂m_uv of every edge, averaged over prompts and samples; see `behaviour` for L."""

    graph: Graph
    scores: Float[Tensor, "U V"]
    """(source, destination); zero where there is no edge."""
    clean_loss: float
    ablated_loss: float
    """L with every edge ablated."""
    complete: bool
    """Whether the sum over edges approaches the difference of the two."""

    def residual(self) -> float | None:
        """Sum over edges − (L(all ablated) − L(clean)): shrinks as samples grow; None for `eap_ig`."""
        return self.scores.sum().item() - (self.ablated_loss - self.clean_loss) if self.complete else None


def ranked(graph: Graph, scores: Float[Tensor, "U V"]) -> Int[Tensor, "edges 2"]:
    """(source, destination) of every edge, the largest absolute score first."""
    places = graph.places()
    sizes = scores.cpu()[places[:, 0], places[:, 1]].abs()
    return places[sizes.argsort(descending=True, stable=True)]


@torch.no_grad()
def edge_scores(
    model: Any, prompts: Sequence[PromptPair], request: EdgeRequest, advance: Callable[[int], object] = lambda _: None
) -> EdgeScores:
    """Scores of all edges; `advance` is called with the number of prompts done.

    `mask_gradient` at mask 0 is edge attribution patching (Syed et al. 2023); `eap_ig` is Hanna et al. 2024.
    ValueError as in `EdgeRequest.check`.
    """
    graph = graph_of(model.network())
    score = mask_gradient if request.method == "mask_gradient" else eap_ig
    dtype = torch.promote_types(model.dtype, torch.float32)
    scores = torch.zeros(len(graph.sources), len(graph.destinations), device=model.device, dtype=dtype)
    ends = {0.0: 0.0, 1.0: 0.0}
    for batch in batches(model, graph, prompts, request):
        ablated = streams(graph, batch.ablated)
        known = score(model, graph, batch, ablated, request, scores)
        for end in ends:
            if end not in known:
                known[end] = loss_of(model, batch, UniformMask(graph, end, ablated), request).item()
            ends[end] += known[end]
        advance(len(batch.prompts))
    clean, ablated_loss = (total / len(prompts) for total in ends.values())
    return EdgeScores(graph, scores / len(prompts), clean, ablated_loss, request.method == "mask_gradient")


def loss_of(model: Any, batch: Batch, patch: UniformMask, request: EdgeRequest) -> Float[Tensor, ""]:
    """The sum of the prompts' L in one pass."""
    logits = model.patched_logits(batch.ids, patch)
    return request.losses(logits, batch.prompts).sum()


def mask_gradient(
    model: Any,
    graph: Graph,
    batch: Batch,
    ablated: Sequence[Float[Tensor, "B T D"]],
    request: EdgeRequest,
    scores: Float[Tensor, "U V"],
) -> dict[float, float]:
    """Add a batch's ∂L/∂m_uv, averaged over the mask values; L by mask value."""
    known, masks = {}, request.masks()
    for mask in masks:
        patch = UniformMask(graph, mask, ablated)
        with torch.enable_grad():
            loss = loss_of(model, batch, patch, request)
        add_scores(graph, batch.ablated, patch.outputs, patch.gradients(loss), 1 / len(masks), scores)
        known[mask] = loss.item()
    return known


def eap_ig(
    model: Any,
    graph: Graph,
    batch: Batch,
    ablated: Sequence[Float[Tensor, "B T D"]],
    request: EdgeRequest,
    scores: Float[Tensor, "U V"],
) -> dict[float, float]:
    """Add a batch's (ablated_u − clean_u) · mean ∂L/∂in_v over embeddings interpolated in k/m, k = 1 … m."""
    assert request.samples is not None
    clean = outputs_on(model, graph, batch.prompts, "clean")
    for step in range(1, request.samples + 1):
        patch = UniformMask(graph, embedding=batch.ablated[0].lerp(clean[0], step / request.samples))
        with torch.enable_grad():
            loss = loss_of(model, batch, patch, request)
        add_scores(graph, batch.ablated, clean, patch.gradients(loss), 1 / request.samples, scores)
    return {0.0: loss.item()}


def add_scores(
    graph: Graph,
    ablated: Outputs,
    current: Outputs,
    gradients: Iterable[Float[Tensor, "destinations B T D"]],
    weight: float,
    scores: Float[Tensor, "U V"],
) -> None:
    """Σ over prompts, positions and hidden of (ablated_u − current_u) · ∂L/∂in_v, one matrix product a stage."""
    differences = vectors(graph, [a - c for a, c in zip(ablated, current, strict=True)]).flatten(1).to(scores.dtype)
    for stage, gradient in zip(graph.stages, gradients, strict=True):
        product = differences[stage.upstream] @ gradient.flatten(1).to(scores.dtype).T
        scores[stage.upstream, stage.destinations] += weight * product
