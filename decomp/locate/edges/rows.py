"""Reading tables of edges, which have one row for each edge, and describing how scores were made."""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.locate.edges.graph import Graph
from decomp.locate.edges.request import LOSSES, QUADRATURE, EdgeRequest
from decomp.locate.edges.scoring import COLUMNS, EdgeScores
from decomp.locate.tables import read_rows


def read_edges(path: Path, graph: Graph) -> Float[Tensor, "U V"]:
    """Return the scores in a table of edges; zero for edges that it lacks.

    ValueError for unknown nodes, for edges that the graph does not have or the table has twice, and for scores that are
    not finite numbers.
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
    """Return a score as a number. ValueError, with the place, for one that is not a finite number."""
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{place}: score must be a number, it is {score!r}")
    return value


def example(names: list[str]) -> str:
    """Return a text with the first few names and the last, for the message of an error."""
    return ", ".join([*names[:3], "…", names[-1]] if len(names) > 4 else names)


def summary(result: EdgeScores, request: EdgeRequest) -> dict[str, Any]:
    """Return a description of scores for their table: the options, the losses, the sign, and the residual if any."""
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
