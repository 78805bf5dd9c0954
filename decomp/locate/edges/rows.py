"""Edges as tables: one row per edge, and back."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.io.records import read_records
from decomp.locate.edges.behaviour import LOSSES
from decomp.locate.edges.graph import Graph
from decomp.locate.edges.scoring import EdgeRequest, EdgeScores
from decomp.tables.columns import Row, significant

COLUMNS = ("source", "destination", "input", "score")


def edge_rows(result: EdgeScores, edges: Int[Tensor, "edges 2"]) -> Iterator[Row]:
    """One row per (source, destination); `input`: query, key or value of a head, else `input`."""
    scores = significant(result.scores.cpu()[edges[:, 0], edges[:, 1]])
    for (u, v), score in zip(edges.tolist(), scores, strict=True):
        yield result.graph.sources[u], *result.graph.destinations[v], score


def read_edges(path: Path, graph: Graph) -> Float[Tensor, "U V"]:
    """The scores of a table of edges. ValueError for unknown nodes, edges that are not there, or none."""
    scores = torch.zeros(len(graph.sources), len(graph.destinations), dtype=torch.float64)
    sources = {name: u for u, name in enumerate(graph.sources)}
    destinations = {name: v for v, name in enumerate(graph.destinations)}
    nodes = {node for node, _ in graph.destinations}
    edges = graph.edges()
    for record in read_records(path, COLUMNS):
        source, node, name, score = (record.values[column] for column in COLUMNS)
        for what, known in ((source, sources), (node, nodes)):
            if what not in known:
                raise ValueError(f"{record.place}: unknown node {what!r}: the model's are {example(list(known))}")
        place = (sources[source], destinations.get((node, name), -1))
        if place[1] < 0 or not edges[place]:
            raise ValueError(f"{record.place}: the model has no edge from {source} to the {name} of {node}")
        scores[place] = number(record.place, score)
    return scores


def number(place: str, score: Any) -> float:
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{place}: score must be a number, it is {score!r}")
    return value


def example(names: list[str]) -> str:
    """The first names and the last."""
    return ", ".join([*names[:3], "…", names[-1]] if len(names) > 4 else names)


def summary(result: EdgeScores, request: EdgeRequest) -> dict[str, Any]:
    """How scores were made, their sign, and whether they are complete."""
    return {
        "method": request.method,
        "mask_value": request.mask_value,
        "samples": request.samples,
        "ablation": request.ablation,
        "ablation_from": request.side,
        "loss": LOSSES[request.answer_function].format(request.grad_function),
        "score": "dL/dm, mean over prompts and samples: positive where ablating the edge raises L",
        "clean_loss": result.clean_loss,
        "ablated_loss": result.ablated_loss,
        "sum_of_scores": result.scores.sum().item(),
        "residual": result.residual(),
    }
