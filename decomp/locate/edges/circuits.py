"""Circuits: which edges of a ranking are kept, and which of them lie on a way from the embedding to the logits."""

import heapq
from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decomp.locate.edges.behaviour import find
from decomp.locate.edges.graph import Graph

FIRST, LAST = "embedding", "logits"


def take_top(graph: Graph, order: Int[Tensor, "edges 2"], count: int) -> Int[Tensor, "kept 2"]:
    """Return the first edges of a ranking, connected or not."""
    return order[:count]


def take_connected(graph: Graph, order: Int[Tensor, "edges 2"], count: int) -> Int[Tensor, "kept 2"]:
    """Return the first edges of a ranking without dead ends (EAP-IG's `apply_topn`)."""
    return prune(graph, order[:count])


def take_greedily(graph: Graph, order: Int[Tensor, "edges 2"], count: int) -> Int[Tensor, "kept 2"]:
    """Return edges taken from the logits backward, always the best that leads to what was taken, without dead ends.

    That is EAP-IG's `apply_greedy` (Hanna et al. 2024, after Dijkstra).
    """
    into: dict[str, list[int]] = {}
    for rank, destination in enumerate(order[:, 1].tolist()):
        into.setdefault(graph.destinations[destination][0], []).append(rank)
    candidates, reached, taken = into.get(LAST, []), {LAST}, list[int]()
    while candidates and len(taken) < count:
        taken.append(heapq.heappop(candidates))
        node = graph.sources[order[taken[-1], 0]]
        if node not in reached:
            reached.add(node)
            candidates = list(heapq.merge(candidates, into.get(node, [])))
    return prune(graph, order[sorted(taken)])


def prune(graph: Graph, edges: Int[Tensor, "some 2"]) -> Int[Tensor, "kept 2"]:
    """Return the edges that lie on a way from the embedding to the logits, in the same order."""
    sources = [graph.sources[u] for u in edges[:, 0]]
    nodes = [graph.destinations[v][0] for v in edges[:, 1]]
    alive = torch.ones(len(edges), dtype=torch.bool)
    while True:
        begun = {FIRST, *(node for node, kept in zip(nodes, alive, strict=True) if kept)}
        ended = {LAST, *(source for source, kept in zip(sources, alive, strict=True) if kept)}
        still = alive & on_way(sources, begun) & on_way(nodes, ended)
        if torch.equal(still, alive):
            return edges[alive]
        alive = still


def on_way(names: list[str], known: set[str]) -> Bool[Tensor, " names"]:
    """Return which names are among the known ones."""
    return torch.tensor([name in known for name in names], dtype=torch.bool)


CIRCUITS: dict[str, Callable[[Graph, Int[Tensor, "edges 2"], int], Int[Tensor, "kept 2"]]] = {
    "top": take_top,
    "connected": take_connected,
    "greedy": take_greedily,
}
"""By name, from graph, ranking and how many edges to take."""


def find_circuit(graph: Graph, order: Int[Tensor, "edges 2"], count: int, circuit: str) -> Int[Tensor, "kept 2"]:
    """Return the edges of a circuit, (source, destination), as `CIRCUITS` has them. ValueError for an unknown name."""
    return find("circuit", circuit, CIRCUITS)(graph, order, count)
