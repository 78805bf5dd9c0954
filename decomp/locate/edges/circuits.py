"""Circuits: the edges of a ranking that are kept, pruned to those on a path from the embedding to the logits."""

import heapq
from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decomp.locate.edges.graph import Graph
from decomp.locate.edges.request import find

FIRST, LAST = "embedding", "logits"


def take_top(graph: Graph, order: Int[Tensor, "edges 2"], count: int) -> Int[Tensor, "kept 2"]:
    """Return the first `count` edges of a ranking, whether they are connected or not."""
    return order[:count]


def take_connected(graph: Graph, order: Int[Tensor, "edges 2"], count: int) -> Int[Tensor, "kept 2"]:
    """Return the first `count` edges of a ranking, without dead ends (EAP-IG's `apply_topn`)."""
    return prune(graph, order[:count])


def take_greedily(graph: Graph, order: Int[Tensor, "edges 2"], count: int) -> Int[Tensor, "kept 2"]:
    """Return `count` edges taken one by one, always the best that leads to the logits or an edge taken before.

    Dead ends are pruned. It is EAP-IG's `apply_greedy` (Hanna et al. 2024, after Dijkstra).
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
    """Return the edges that lie on a path of edges from the embedding to the logits, in the same order."""
    sources = [graph.sources[u] for u in edges[:, 0]]
    nodes = [graph.destinations[v][0] for v in edges[:, 1]]
    alive = torch.ones(len(edges), dtype=torch.bool)
    while True:
        begun = {FIRST, *(node for node, kept in zip(nodes, alive, strict=True) if kept)}
        ended = {LAST, *(source for source, kept in zip(sources, alive, strict=True) if kept)}
        still = alive & is_known(sources, begun) & is_known(nodes, ended)
        if torch.equal(still, alive):
            return edges[alive]
        alive = still


def is_known(names: list[str], known: set[str]) -> Bool[Tensor, " names"]:
    """Return for each name whether it is among the known ones."""
    return torch.tensor([name in known for name in names], dtype=torch.bool)


CIRCUITS: dict[str, Callable[[Graph, Int[Tensor, "edges 2"], int], Int[Tensor, "kept 2"]]] = {
    "top": take_top,
    "connected": take_connected,
    "greedy": take_greedily,
}
"""The ways to choose a circuit, by name: functions of the graph, a ranking, and the number of edges to take."""


def find_circuit(graph: Graph, order: Int[Tensor, "edges 2"], count: int, circuit: str) -> Int[Tensor, "kept 2"]:
    """Return the edges (source, destination) of a circuit, by its name in `CIRCUITS`. ValueError for an unknown one."""
    return find("circuit", circuit, CIRCUITS)(graph, order, count)
