"""Scoring every edge of the computation graph by gradients (Syed et al. 2023; Hanna et al. 2024)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.locate.edges.batches import Ablations, Batch, ids_of, outputs_on, parts_of, prompts_work
from decomp.locate.edges.behaviour import losses_of
from decomp.locate.edges.graph import Graph, Outputs, graph_of, streams, vectors
from decomp.locate.edges.passes import UniformMask
from decomp.locate.edges.prompts import PromptPair, place_of
from decomp.locate.edges.request import EdgeRequest
from decomp.locate.limits import check_finite
from decomp.tables.blocks import Block, Row, block_of, numbers
from decomp.tables.columns import significant
from decomp.tables.work import Work

COLUMNS = ("source", "destination", "input", "score")
"""The columns of the table of edges."""


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """The scores ∂L/∂m_uv of all edges (u, v) with masks m_uv, of the loss L, combined over prompts and samples."""

    graph: Graph
    """The computation graph whose edges are scored."""
    scores: Float[Tensor, "U V"]
    """The score by source and destination; zero where there is no edge."""
    clean_loss: float
    """The loss L of the clean prompts."""
    ablated_loss: float
    """The loss L with every edge ablated."""
    complete: bool
    """Whether the sum over edges approaches the difference of the two losses as samples grow."""

    def residual(self) -> float | None:
        """Return the sum over edges minus L(all ablated) − L(clean), an error that shrinks as samples grow.

        None for methods whose scores do not add up to that difference.
        """
        return self.scores.sum().item() - (self.ablated_loss - self.clean_loss) if self.complete else None


def ranked(graph: Graph, scores: Float[Tensor, "U V"]) -> Int[Tensor, "edges 2"]:
    """Return all edges as (source, destination), the one with the largest absolute score first."""
    indices = graph.edge_indices()
    sizes = scores.cpu()[indices[:, 0], indices[:, 1]].abs()
    return indices[sizes.argsort(descending=True, stable=True)]


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward and backward pass of a method, with the differences that its gradients are multiplied with."""

    ids: Int[Tensor, "B T"]
    """The token ids of the prompts of the pass."""
    patch: UniformMask
    """The intervention, which keeps outputs and gives gradients."""
    weight: float
    """The factor of this pass's gradients."""
    current: Outputs | None = None
    """The outputs that the difference to the ablated outputs is taken from; None for those of this pass itself."""
    end: float | None = None
    """0 where this pass is the clean one, 1 where every edge is ablated in it; None or another number for others."""


def score_edges(
    model: Model, prompts: Sequence[PromptPair], request: EdgeRequest, advance: Callable[[int], object] = lambda _: None
) -> EdgeScores:
    """Score every edge of a model's computation graph on pairs of prompts.

    The method `mask_gradient` at mask value 0 is edge attribution patching (Syed et al. 2023), `eap_ig` that of Hanna
    et al. 2024. `advance` is called with the number of prompts done. ValueError for a request that is not valid or
    does not fit the prompts, for too little memory, for scores that are not finite, and where every score is zero.

        prompts = read_prompts(Path("data/pronouns.json"), tokenizer, model.config)
        result = score_edges(model, prompts, EdgeRequest(mask_value=0.0))
    """
    work, total = edges_work(model, prompts, request)
    total.add(work.blocks(model, lambda batch: advance(len(batch))))
    return total.result()


def edges_work(
    model: Model, prompts: Sequence[PromptPair], request: EdgeRequest
) -> tuple[Work[PromptPair], "EdgeTable"]:
    """Return the computation of scores from prompts, and the table that sums them; errors are as for `score_edges`."""
    parts = parts_of(model, prompts, request)
    ordered = [prompt for part in parts for prompt in part]
    compute = PromptScores(Ablations(ordered, request), request, request.weights(prompts)).block
    complete = request.method == "mask_gradient" and request.over_samples == "mean"
    total = EdgeTable(graph_of(model), complete, torch.promote_types(model.dtype, torch.float32))
    return prompts_work(parts, compute, EdgeTable.COMPUTED, total), total


@dataclass(frozen=True, eq=False)
class PromptScores:
    """A function of prompts: their parts in the scores of all edges, and in the losses."""

    ablations: Ablations
    request: EdgeRequest
    weights: Mapping[str | None, float]

    @torch.no_grad()
    def block(self, model: Model, prompts: Sequence[PromptPair]) -> Block:
        """Return the parts of a batch of prompts in scores and losses, with the columns `EdgeTable.COMPUTED`."""
        graph = graph_of(model)
        batch, indices = self.ablations.batch(model, graph, prompts), graph.edge_indices()
        scores, clean, ablated = self.of_batch(model, graph, batch)
        values = scores.double().cpu()[indices[:, 0], indices[:, 1]].numpy()
        edges = np.concatenate([np.arange(len(values)), [EdgeTable.CLEAN, EdgeTable.ABLATED]])
        return {"edge": edges, "score": np.concatenate([values, [clean, ablated]])}

    def of_batch(self, model: Model, graph: Graph, batch: Batch) -> tuple[Float[Tensor, "U V"], float, float]:
        """Return the weighted sum of a batch's scores, of its clean losses, and of those with every edge ablated."""
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


class EdgeTable:
    """The table of edges: the sum of the parts that all prompts have in each edge's score."""

    COMPUTED = ("edge", "score")
    """The columns of what prompts give: the number of an edge of the graph (or of a loss), and the part in it."""
    CLEAN, ABLATED = -1, -2
    """The numbers of the two losses: of the clean prompts, and with every edge ablated."""
    columns = COLUMNS

    def __init__(self, graph: Graph, complete: bool, dtype: torch.dtype) -> None:
        self.graph, self.complete, self.dtype = graph, complete, dtype
        self.indices = graph.edge_indices()
        self.sums = np.zeros(len(self.indices) + 2)

    def add(self, blocks: Iterable[Block]) -> None:
        """Add up the parts of all batches, in the order in which these come."""
        self.sums[:] = 0
        for block in blocks:
            np.add.at(self.sums, numbers(block["edge"]), numbers(block["score"]))

    def result(self) -> EdgeScores:
        """Return the scores of all edges. ValueError for one that is not finite, and where all are zero."""
        graph = self.graph
        scores = torch.zeros(len(graph.sources), len(graph.destinations), dtype=self.dtype)
        scores[self.indices[:, 0], self.indices[:, 1]] = torch.from_numpy(self.sums[:-2]).to(self.dtype)
        check_scores(graph, scores)
        return EdgeScores(graph, scores, float(self.sums[self.CLEAN]), float(self.sums[self.ABLATED]), self.complete)

    def __call__(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the table made of all batches: one row for each edge."""
        self.add(blocks)
        yield block_of(self.columns, edge_rows(self.result(), self.indices))


def edge_rows(result: EdgeScores, edges: Int[Tensor, "edges 2"]) -> Iterator[Row]:
    """Yield one row for each of the edges; its `input` is query, key or value of a head, and for others `input`."""
    scores = significant(result.scores.cpu()[edges[:, 0], edges[:, 1]])
    for (u, v), score in zip(edges.tolist(), scores, strict=True):
        yield result.graph.sources[u], *result.graph.destinations[v], score


def check_scores(graph: Graph, scores: Float[Tensor, "U V"]) -> None:
    """Raise ValueError for a score that is not finite, with its edge, and where all scores are zero."""

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
    """Return the weighted sum of the prompts' losses in one pass. ValueError, with the prompt, for one not finite."""
    losses = losses_of(request, model.patched_logits(one.ids, one.patch), batch.prompts, batch.clean)
    check_finite(losses.detach(), lambda place: f"the loss of {place_of(batch.prompts[place[0]], place[0])}")
    return losses.to(counted.dtype) @ counted


def end_pass(graph: Graph, batch: Batch, ablated: Sequence[Float[Tensor, "B T D"]], end: float) -> Pass:
    """Return the clean pass for `end` 0, or the pass with every edge ablated for `end` 1."""
    return Pass(batch.ids, UniformMask(graph, end, ablated), 0.0)


def mask_passes(
    model: Model, graph: Graph, batch: Batch, ablated: Sequence[Float[Tensor, "B T D"]], request: EdgeRequest
) -> Iterator[Pass]:
    """Yield the passes for ∂L/∂m_uv: one at each mask value, to which all edges are ablated."""
    for mask, weight in request.nodes():
        yield Pass(batch.ids, UniformMask(graph, mask, ablated), weight, end=mask)


def embedding_passes(
    model: Model, graph: Graph, batch: Batch, ablated: Sequence[Float[Tensor, "B T D"]], request: EdgeRequest
) -> Iterator[Pass]:
    """Yield the passes for (ablated_u − clean_u) · mean ∂L/∂in_v over interpolated embeddings (Hanna et al. 2024)."""
    clean = outputs_on(model, graph, batch.prompts, "clean")
    for node, weight in request.nodes():
        patch = UniformMask(graph, replaced=(0, batch.ablated[0].lerp(clean[0], node)))
        yield Pass(batch.ids, patch, weight, clean, 0.0 if node == 1 else None)


def activation_passes(
    model: Model, graph: Graph, batch: Batch, ablated: Sequence[Float[Tensor, "B T D"]], request: EdgeRequest
) -> Iterator[Pass]:
    """Yield the passes for (ablated_u − clean_u) · mean ∂L/∂in_v over interpolated outputs of one stage at a time.

    Stages are the embedding, all heads of a layer, its MLP, or a norm that is a node. The mean is over stages and nodes
    (EAP-IG's `get_scores_ig_activations`).
    """
    clean = outputs_on(model, graph, batch.prompts, "clean")
    for place, (ablation, own) in enumerate(zip(batch.ablated, clean, strict=True)):
        for node, weight in request.nodes():
            patch = UniformMask(graph, replaced=(place, ablation.lerp(own, node)))
            yield Pass(batch.ids, patch, weight / len(clean), clean, 0.0 if node == 1 else None)


def end_passes(
    model: Model, graph: Graph, batch: Batch, ablated: Sequence[Float[Tensor, "B T D"]], request: EdgeRequest
) -> Iterator[Pass]:
    """Yield the passes for (ablated_u − clean_u) · mean of ∂L/∂in_v on the clean and on the corrupt prompts.

    It is EAP-IG's `clean-corrupted`. Where samples are added up instead of averaged, so are these two.
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
"""The passes of each method, by name: functions of model, graph, batch, ablated streams and request."""


def add_scores(
    graph: Graph,
    ablated: Outputs,
    current: Outputs,
    gradients: Iterable[Float[Tensor, "destinations B T D"]],
    weight: float,
    scores: Float[Tensor, "U V"],
) -> None:
    """Add Σ (ablated_u − current_u) · ∂L/∂in_v over prompts, positions and hidden width to `scores`, in place."""
    differences = vectors(graph, [a - c for a, c in zip(ablated, current, strict=True)]).flatten(1).to(scores.dtype)
    for stage, gradient in zip(graph.stages, gradients, strict=True):
        product = differences[stage.upstream] @ gradient.flatten(1).to(scores.dtype).T
        scores[stage.upstream, stage.destinations] += weight * product
