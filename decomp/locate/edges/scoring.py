"""Scores for every edge of the computation graph (Syed et al. 2023; Hanna et al. 2024)."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.locate.edges.batches import Ablations, Batch, ids_of, outputs_on, parts_of, prompts_work
from decomp.locate.edges.behaviour import Setting, find
from decomp.locate.edges.graph import Graph, Outputs, graph_of, streams, vectors
from decomp.locate.edges.passes import UniformMask
from decomp.locate.edges.prompts import PromptPair, place_of
from decomp.locate.limits import check_finite
from decomp.locate.quadrature import nodes_of
from decomp.measures.quadrature import Nodes
from decomp.tables.blocks import Block, Row, block_of, numbers
from decomp.tables.columns import significant
from decomp.tables.work import Work

COLUMNS = ("source", "destination", "input", "score")
"""Of the table of edges."""
Method = Literal["mask_gradient", "eap_ig", "eap_ig_activations", "both_ends"]
METHODS: tuple[str, ...] = get_args(Method)
QUADRATURE = {"mask_gradient": "riemann", "eap_ig": "right", "eap_ig_activations": "right"}
"""By method, where gradients are taken by default: at auto-circuit's mask values; at k = 1 … n (Hanna et al. 2024)."""
OverPrompts = Literal["mean", "sum", "batch_means"]
OVER_PROMPTS: tuple[str, ...] = get_args(OverPrompts)


@dataclass(frozen=True)
class EdgeRequest(Setting):
    """How edges are scored.

    `mask_gradient` takes its gradients at one `mask_value`, or at the nodes of a `quadrature` of `samples` between
    0 and 1 (`riemann`: `samples` + 1 evenly spaced values); `eap_ig` at embeddings on the way from the ablated to
    the clean one; `eap_ig_activations` at every node's output on that way, one layer's node kind at a time;
    `both_ends` in the passes over the clean and the corrupt prompts.
    """

    method: Method = "mask_gradient"
    mask_value: float | None = None
    samples: int | None = None
    quadrature: str | None = None
    """`QUADRATURE` of the method where it is None."""
    over_prompts: OverPrompts = "mean"
    """Scores are means over prompts, their sum, or the sum over given batches of the means in them."""
    over_samples: Literal["mean", "sum"] = "mean"

    def check(self, prompts: Sequence[PromptPair] = ()) -> None:
        """Raise ValueError for unknown names, and for what does not go together."""
        find("method", self.method, dict.fromkeys(METHODS))
        find("reduction over prompts", self.over_prompts, dict.fromkeys(OVER_PROMPTS))
        find("reduction over samples", self.over_samples, {"mean": 0, "sum": 0})
        self.check_nodes()
        super().check(prompts)

    def check_prompt(self, place: str, prompt: PromptPair) -> None:
        """Raise ValueError for a prompt that this request is not defined for."""
        super().check_prompt(place, prompt)
        if self.over_prompts == "batch_means" and prompt.batch is None:
            raise ValueError(f"{place} is of no given batch, whose means are added up: give --batch-by (batch_by)")

    def check_nodes(self) -> None:
        """Raise ValueError where it is not clear, or makes no sense, where gradients are taken."""
        if self.method == "both_ends":
            if (self.mask_value, self.samples, self.quadrature) != (None, None, None):
                raise ValueError("both_ends takes its gradients at the clean and corrupt prompts: give no nodes for it")
            return
        if (self.mask_value is None) == (self.samples is None):
            raise ValueError("give a mask value or a number of integrated gradient samples, exactly one of the two")
        if self.mask_value is not None and not math.isfinite(self.mask_value):
            raise ValueError(f"the mask value must be a finite number, not {self.mask_value}")
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"the number of integrated gradient samples must be at least 1, not {self.samples}")
        if self.method != "mask_gradient" and self.samples is None:
            what = "inputs" if self.method == "eap_ig" else "outputs"
            raise ValueError(
                f"{self.method} interpolates {what}, not masks: give integrated gradient samples, no mask value"
            )
        if self.quadrature is not None and self.samples is None:
            raise ValueError("a quadrature is of integrated gradient samples: give their number, no mask value")
        self.check_slope()

    def check_slope(self) -> None:
        """Raise ValueError for the divergence from the clean prediction, differentiated there alone: it is flat."""
        clean = 0.0 if self.method == "mask_gradient" else 1.0
        if self.answer_function == "kl" and all(node == clean for node, _ in self.nodes()):
            raise ValueError(
                "the divergence from the clean prediction is flat there, every score would be 0: take gradients "
                "elsewhere too, at samples of mask_gradient, more samples of eap_ig, or both_ends"
            )

    def nodes(self) -> Nodes:
        """Return where gradients are taken, with their weights: from 0 to 1, of masks or towards the clean."""
        if self.samples is None:
            assert self.mask_value is not None
            return [(self.mask_value, 1.0)]
        nodes = nodes_of(self.quadrature or QUADRATURE[self.method], self.samples)
        return [(node, 1.0 if self.over_samples == "sum" else weight) for node, weight in nodes]

    def weights(self, prompts: Sequence[PromptPair]) -> dict[str | None, float]:
        """Return what a prompt counts in scores and losses, by `weighed_with`."""
        sizes = Counter(map(self.weighed_with, prompts))
        return {name: 1.0 if self.over_prompts == "sum" else 1 / size for name, size in sizes.items()}

    def weighed_with(self, prompt: PromptPair) -> str | None:
        """Return the given batch whose mean a prompt is in, None for all prompts."""
        return prompt.batch if self.over_prompts == "batch_means" else None


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """∂L/∂m_uv of every edge, over prompts and samples as was asked for; see `behaviour` for L."""

    graph: Graph
    scores: Float[Tensor, "U V"]
    """(source, destination); zero where there is no edge."""
    clean_loss: float
    ablated_loss: float
    """L with every edge ablated."""
    complete: bool
    """Whether the sum over edges approaches the difference of the two."""

    def residual(self) -> float | None:
        """Return the sum over edges − (L(all ablated) − L(clean)), which shrinks as samples grow.

        None for methods whose scores do not add up.
        """
        return self.scores.sum().item() - (self.ablated_loss - self.clean_loss) if self.complete else None


def ranked(graph: Graph, scores: Float[Tensor, "U V"]) -> Int[Tensor, "edges 2"]:
    """Return (source, destination) of every edge, the largest absolute score first."""
    places = graph.places()
    sizes = scores.cpu()[places[:, 0], places[:, 1]].abs()
    return places[sizes.argsort(descending=True, stable=True)]


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward and backward pass of a method, and what its gradients are multiplied with."""

    ids: Int[Tensor, "B T"]
    patch: UniformMask
    weight: float
    current: Outputs | None = None
    """What the difference to the ablated outputs is from; None: the outputs of this very pass."""
    end: float | None = None
    """0 or 1 where this pass is the clean one, or the one with every edge ablated."""


def score_edges(
    model: Model, prompts: Sequence[PromptPair], request: EdgeRequest, advance: Callable[[int], object] = lambda _: None
) -> EdgeScores:
    """Score every edge of a model's computation graph on pairs of prompts.

    `mask_gradient` at mask 0 is edge attribution patching (Syed et al. 2023), `eap_ig` is Hanna et al. 2024.
    `advance` is called with the number of prompts done. ValueError as in `EdgeRequest.check`, for too little
    memory, scores that are not finite, and where every score is zero.

        prompts = read_prompts(Path("data/pronouns.json"), tokenizer, model.config)
        result = score_edges(model, prompts, EdgeRequest(mask_value=0.0))
    """
    work, total = edges_work(model, prompts, request)
    total.add(work.blocks(model, lambda batch: advance(len(batch))))
    return total.result()


def edges_work(
    model: Model, prompts: Sequence[PromptPair], request: EdgeRequest
) -> tuple[Work[PromptPair], "EdgeTotal"]:
    """Return prompts as what scores of edges are made of, and what adds these up. ValueErrors as in `score_edges`."""
    parts = parts_of(model, prompts, request)
    ordered = [prompt for part in parts for prompt in part]
    compute = PromptScores(Ablations(ordered, request), request, request.weights(prompts)).block
    complete = request.method == "mask_gradient" and request.over_samples == "mean"
    total = EdgeTotal(graph_of(model), complete, torch.promote_types(model.dtype, torch.float32))
    return prompts_work(parts, compute, EdgeTotal.COMPUTED, total), total


@dataclass(frozen=True, eq=False)
class PromptScores:
    """What prompts have in the scores of edges, and in the losses."""

    ablations: Ablations
    request: EdgeRequest
    weights: Mapping[str | None, float]

    @torch.no_grad()
    def block(self, model: Model, prompts: Sequence[PromptPair]) -> Block:
        """Return rows of `EdgeTotal.COMPUTED` for prompts that are computed together."""
        graph = graph_of(model)
        batch, places = self.ablations.batch(model, graph, prompts), graph.places()
        scores, clean, ablated = self.of_batch(model, graph, batch)
        values = scores.double().cpu()[places[:, 0], places[:, 1]].numpy()
        edges = np.concatenate([np.arange(len(values)), [EdgeTotal.CLEAN, EdgeTotal.ABLATED]])
        return {"edge": edges, "score": np.concatenate([values, [clean, ablated]])}

    def of_batch(self, model: Model, graph: Graph, batch: Batch) -> tuple[Float[Tensor, "U V"], float, float]:
        """Return the weighted sum of a batch's scores, and of its losses: clean, and with every edge ablated."""
        request, dtype = self.request, torch.promote_types(model.dtype, torch.float32)
        scores = torch.zeros(len(graph.sources), len(graph.destinations), device=model.device, dtype=dtype)
        weights = [self.weights[request.weighed_with(prompt)] for prompt in batch.prompts]
        counted = torch.tensor(weights, device=model.device, dtype=dtype)
        ablated = streams(graph, batch.ablated)
        known: dict[float | None, float] = {}
        for one in PASSES[request.method](model, graph, batch, ablated, request):
            with torch.enable_grad():
                loss = loss_of(model, batch, one, request, counted)
            gradients = one.patch.gradients(loss)
            add_scores(graph, batch.ablated, one.current or one.patch.outputs, gradients, one.weight, scores)
            known[one.end] = loss.item()
        for end in (0.0, 1.0):
            if end not in known:
                known[end] = loss_of(model, batch, end_pass(graph, batch, ablated, end), request, counted).item()
        return scores, known[0.0], known[1.0]


class EdgeTotal:
    """The table of edges: the sum of what all prompts have in each."""

    COMPUTED = ("edge", "score")
    """The number of an edge among the graph's, or of a loss, and what it has."""
    CLEAN, ABLATED = -1, -2
    """Numbers of the losses: as it is, and with every edge ablated."""
    columns = COLUMNS

    def __init__(self, graph: Graph, complete: bool, dtype: torch.dtype) -> None:
        self.graph, self.complete, self.dtype = graph, complete, dtype
        self.places = graph.places()
        self.sums = np.zeros(len(self.places) + 2)

    def add(self, blocks: Iterable[Block]) -> None:
        """Add up, in the order in which they come."""
        self.sums[:] = 0
        for block in blocks:
            np.add.at(self.sums, numbers(block["edge"]), numbers(block["score"]))

    def result(self) -> EdgeScores:
        """Return the scores. ValueError for one that is not finite, and where all are zero."""
        graph = self.graph
        scores = torch.zeros(len(graph.sources), len(graph.destinations), dtype=self.dtype)
        scores[self.places[:, 0], self.places[:, 1]] = torch.from_numpy(self.sums[:-2]).to(self.dtype)
        check_scores(graph, scores)
        return EdgeScores(graph, scores, float(self.sums[self.CLEAN]), float(self.sums[self.ABLATED]), self.complete)

    def __call__(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield one row per edge."""
        self.add(blocks)
        yield block_of(self.columns, edge_rows(self.result(), self.places))


def edge_rows(result: EdgeScores, edges: Int[Tensor, "edges 2"]) -> Iterator[Row]:
    """Yield one row per (source, destination); `input`: query, key or value of a head, else `input`."""
    scores = significant(result.scores.cpu()[edges[:, 0], edges[:, 1]])
    for (u, v), score in zip(edges.tolist(), scores, strict=True):
        yield result.graph.sources[u], *result.graph.destinations[v], score


def check_scores(graph: Graph, scores: Float[Tensor, "U V"]) -> None:
    """Raise ValueError for a score that is not finite, naming its edge, and where all are zero."""

    def edge(place: tuple[int, ...]) -> str:
        node, name = graph.destinations[place[1]]
        return f"the score of the edge from {graph.sources[place[0]]} to the {name} of {node}"

    check_finite(scores, edge)
    if not scores.any():
        raise ValueError(
            "every edge scores 0: what sources are replaced by is what they give, or the loss does not depend on them; "
            "look at the prompts, --ablation and --answer-function"
        )


def loss_of(
    model: Model, batch: Batch, one: Pass, request: EdgeRequest, counted: Float[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Return the weighted sum of the prompts' L in one pass. ValueError, with the prompt, where L is not finite."""
    losses = request.losses(model.patched_logits(one.ids, one.patch), batch.prompts, batch.clean)
    check_finite(losses.detach(), lambda place: f"the loss of {place_of(batch.prompts[place[0]], place[0])}")
    return losses.to(counted.dtype) @ counted


def end_pass(graph: Graph, batch: Batch, ablated: Sequence[Float[Tensor, "B T D"]], end: float) -> Pass:
    """Return the clean pass (0), or that with every edge ablated (1)."""
    return Pass(batch.ids, UniformMask(graph, end, ablated), 0.0)


def mask_passes(
    model: Model, graph: Graph, batch: Batch, ablated: Sequence[Float[Tensor, "B T D"]], request: EdgeRequest
) -> Iterator[Pass]:
    """Yield the passes of ∂L/∂m_uv at each mask value, all edges ablated that far."""
    for mask, weight in request.nodes():
        yield Pass(batch.ids, UniformMask(graph, mask, ablated), weight, end=mask)


def embedding_passes(
    model: Model, graph: Graph, batch: Batch, ablated: Sequence[Float[Tensor, "B T D"]], request: EdgeRequest
) -> Iterator[Pass]:
    """Yield the passes of (ablated_u − clean_u) · mean ∂L/∂in_v over interpolated embeddings (Hanna et al. 2024)."""
    clean = outputs_on(model, graph, batch.prompts, "clean")
    for node, weight in request.nodes():
        patch = UniformMask(graph, replaced=(0, batch.ablated[0].lerp(clean[0], node)))
        yield Pass(batch.ids, patch, weight, clean, 0.0 if node == 1 else None)


def activation_passes(
    model: Model, graph: Graph, batch: Batch, ablated: Sequence[Float[Tensor, "B T D"]], request: EdgeRequest
) -> Iterator[Pass]:
    """Yield the passes of (ablated_u − clean_u) · mean ∂L/∂in_v over interpolated outputs of one stage at a time.

    Stages are the embedding, the heads of a layer together, its MLP, a norm that is a node; the mean is over
    stages and nodes (EAP-IG, `get_scores_ig_activations`).
    """
    clean = outputs_on(model, graph, batch.prompts, "clean")
    for place, (ablation, own) in enumerate(zip(batch.ablated, clean, strict=True)):
        for node, weight in request.nodes():
            patch = UniformMask(graph, replaced=(place, ablation.lerp(own, node)))
            yield Pass(batch.ids, patch, weight / len(clean), clean, 0.0 if node == 1 else None)


def end_passes(
    model: Model, graph: Graph, batch: Batch, ablated: Sequence[Float[Tensor, "B T D"]], request: EdgeRequest
) -> Iterator[Pass]:
    """Yield the passes of (ablated_u − clean_u) · mean of ∂L/∂in_v on the clean and on the corrupt prompts.

    That is EAP-IG's `clean-corrupted`; where samples are added up, the two are.
    """
    clean, weight = outputs_on(model, graph, batch.prompts, "clean"), 1.0 if request.over_samples == "sum" else 0.5
    yield Pass(batch.ids, UniformMask(graph), weight, clean, 0.0)
    yield Pass(ids_of(model, batch.prompts, "corrupt"), UniformMask(graph), weight, clean)


PASSES: dict[str, Callable[..., Iterator[Pass]]] = {
    "mask_gradient": mask_passes,
    "eap_ig": embedding_passes,
    "eap_ig_activations": activation_passes,
    "both_ends": end_passes,
}
"""By method, from model, graph, batch, ablated streams and request."""


def add_scores(
    graph: Graph,
    ablated: Outputs,
    current: Outputs,
    gradients: Iterable[Float[Tensor, "destinations B T D"]],
    weight: float,
    scores: Float[Tensor, "U V"],
) -> None:
    """Add Σ over prompts, positions and hidden of (ablated_u − current_u) · ∂L/∂in_v, one matrix product a stage."""
    differences = vectors(graph, [a - c for a, c in zip(ablated, current, strict=True)]).flatten(1).to(scores.dtype)
    for stage, gradient in zip(graph.stages, gradients, strict=True):
        product = differences[stage.upstream] @ gradient.flatten(1).to(scores.dtype).T
        scores[stage.upstream, stage.destinations] += weight * product
