"""Edges as tables: one row per edge, and back."""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.locate.edges.behaviour import LOSSES
from decomp.locate.edges.graph import Graph
from decomp.locate.edges.scoring import COLUMNS, QUADRATURE, EdgeRequest, EdgeScores
from decomp.locate.tables import read_rows


def read_edges(path: Path, graph: Graph) -> Float[Tensor, "U V"]:
    """Return the scores of a table of edges, zero for those that it lacks.

    ValueError for unknown nodes, edges that are not there or are twice in the table, scores that are no numbers.
    """
    scores = torch.zeros(len(graph.sources), len(graph.destinations), dtype=torch.float64)
    seen: dict[tuple[int, int], str] = {}
    sources = {name: u for u, name in enumerate(graph.sources)}
    destinations = {name: v for v, name in enumerate(graph.destinations)}
    nodes = {node for node, _ in graph.destinations}
    edges = graph.edges()
    for record in read_rows(path, COLUMNS):
        source, node, name, score = (record.values[column] for column in COLUMNS)
        for what, known in ((source, sources), (node, nodes)):
            if what not in known:
                raise ValueError(f"{record.place}: unknown node {what!r}: the model's are {example(list(known))}")
        place = (sources[source], destinations.get((node, name), -1))
        if place[1] < 0 or not edges[place]:
            raise ValueError(f"{record.place}: the model has no edge from {source} to the {name} of {node}")
        if place in seen:
            raise ValueError(f"{record.place}: the edge from {source} to the {name} of {node} is in {seen[place]} too")
        seen[place] = record.place.removeprefix(f"{path}, ")
        scores[place] = number(record.place, score)
    return scores


def number(place: str, score: Any) -> float:
    """Return a score. ValueError, with the place, for what is no finite number."""
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{place}: score must be a number, it is {score!r}")
    return value


def example(names: list[str]) -> str:
    """Return the first names and the last, for an error."""
    return ", ".join([*names[:3], "…", names[-1]] if len(names) > 4 else names)


def summary(result: EdgeScores, request: EdgeRequest) -> dict[str, Any]:
    """Return how scores were made, their sign, and whether they are complete."""
    over_prompts = {"batch_means": "sum over batches of means over prompts"}.get(
        request.over_prompts, f"{request.over_prompts} over prompts"
    )
    over = f"{over_prompts}, {request.over_samples} over samples"
    return {
        "method": request.method,
        "mask_value": request.mask_value,
        "samples": request.samples,
        "quadrature": None if request.samples is None else request.quadrature or QUADRATURE.get(request.method),
        "ablation": request.ablation,
        "ablation_from": request.side,
        "loss": LOSSES[request.answer_function].format(request.grad_function),
        "score": f"dL/dm, {over}: positive where ablating the edge raises L",
        "clean_loss": result.clean_loss,
        "ablated_loss": result.ablated_loss,
        "sum_of_scores": result.scores.sum().item(),
        "residual": result.residual(),
    }
