"""Whether edges carry a behaviour: the best ones kept, all others ablated (Hanna et al. 2024)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.locate.edges.batches import batches
from decomp.locate.edges.behaviour import Setting
from decomp.locate.edges.graph import Graph
from decomp.locate.edges.passes import EdgeMasks
from decomp.locate.edges.prompts import PromptPair
from decomp.locate.edges.scoring import ranked


@dataclass(frozen=True)
class Kept:
    """What is left with `count` edges of a ranking (`score`, or `random` with its number)."""

    ranking: str
    count: int
    loss: float
    remaining: float
    """(L(all ablated) − L) / (L(all ablated) − L(clean)): 1 where the kept edges carry all of the behaviour."""


COLUMNS = ("ranking", "edges", "loss", "remaining")


def default_counts(edges: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, … below the number of edges."""
    return [m * 10**power for power in range(len(str(edges))) for m in (1, 2, 5) if m * 10**power < edges]


def check_counts(counts: Sequence[int], edges: int) -> None:
    for count in counts:
        if not 0 <= count <= edges:
            raise ValueError(f"can't keep {count} edges: the model has {edges}")


def rankings(graph: Graph, scores: Float[Tensor, "U V"], random: int, seed: int) -> dict[str, Int[Tensor, "edges 2"]]:
    """By absolute score, and `random` orders to compare with."""
    best, generator = ranked(graph, scores), torch.Generator().manual_seed(seed)
    shuffled = {f"random {i}": best[torch.randperm(len(best), generator=generator)] for i in range(random)}
    return {"score": best, **shuffled}


def masks_but(graph: Graph, kept: Int[Tensor, "edges 2"], like: Tensor) -> Float[Tensor, "U V"]:
    """1 for every edge, 0 for those kept."""
    masks = graph.edges().to(like)
    masks[kept[:, 0], kept[:, 1]] = 0
    return masks


@torch.no_grad()
def check_edges(
    model: Any,
    graph: Graph,
    prompts: Sequence[PromptPair],
    orders: dict[str, Int[Tensor, "edges 2"]],
    counts: Sequence[int],
    setting: Setting,
    advance: Callable[[int], object] = lambda _: None,
) -> list[Kept]:
    """Per ranking and count the mean L over prompts; `advance` is called with the passes done.

    ValueError for counts that there are not, and as in `Setting.check`.
    """
    every = len(graph.places())
    check_counts(counts, every)
    cases = {("score", 0): 0.0, ("score", every): 0.0} | {(name, n): 0.0 for name in orders for n in sorted(counts)}
    for batch in batches(model, graph, prompts, setting):
        for name, count in cases:
            masks = masks_but(graph, orders[name][:count], batch.ablated[0])
            logits = model.patched_logits(batch.ids, EdgeMasks(graph, masks, batch.ablated))
            cases[name, count] += setting.losses(logits, batch.prompts).sum().item()
            advance(1)
    mean = {case: total / len(prompts) for case, total in cases.items()}
    none, clean = mean["score", 0], mean["score", every]
    return [
        Kept(name, count, loss, (none - loss) / (none - clean) if clean != none else float("nan"))
        for (name, count), loss in sorted(mean.items(), key=lambda item: item[0][1])
    ]
