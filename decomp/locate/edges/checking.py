"""Checking whether edges carry a behaviour: the best are kept, all others ablated (Hanna et al. 2024)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.locate.edges.batches import Ablations, parts_of, prompts_work
from decomp.locate.edges.behaviour import losses_of
from decomp.locate.edges.circuits import find_circuit
from decomp.locate.edges.graph import Graph, graph_of
from decomp.locate.edges.passes import EdgeMasks
from decomp.locate.edges.prompts import PromptPair, place_of
from decomp.locate.edges.request import PER_BATCH, Behaviour
from decomp.locate.edges.scoring import ranked
from decomp.locate.limits import check_finite, check_once
from decomp.locate.tables import check_fits
from decomp.tables.blocks import Block, block_of, numbers
from decomp.tables.work import Work


@dataclass(frozen=True)
class KeptEdges:
    """A row of the check: the part of a behaviour that remains with only some edges of a ranking kept.

    The ranking is that by `score`, or a random one, called `random` with its number.
    """

    ranking: str
    """The name of the ranking: `score`, or `random` with a number."""
    edges: int
    """The number of edges to keep that was asked for."""
    kept: int
    """The number of edges kept, which is smaller where dead ends were pruned."""
    loss: float
    """The mean loss L over prompts with the kept edges alone."""
    remaining: float
    """(L(all ablated) − L) / (L(all ablated) − L(clean)), which is 1 where the kept edges carry the whole behaviour."""


COLUMNS = ("ranking", "edges", "kept", "loss", "remaining")


def default_counts(edges: int) -> list[int]:
    """Return the default numbers of edges to keep: 1, 2, 5, 10, 20, 50, … below the number of all edges."""
    return [m * 10**power for power in range(len(str(edges))) for m in (1, 2, 5) if m * 10**power < edges]


def check_counts(counts: Sequence[int], edges: int) -> None:
    """Raise ValueError for a number of edges larger than that of the model, and for one that is given twice."""
    check_once("--keep", counts)
    for count in counts:
        if not 0 <= count <= edges:
            raise ValueError(f"can't keep {count} edges: the model has {edges}")


def rankings(graph: Graph, scores: Float[Tensor, "U V"], random: int, seed: int) -> dict[str, Int[Tensor, "edges 2"]]:
    """Return rankings of the edges by name: by absolute score, and `random` random ones to compare with."""
    best, generator = ranked(graph, scores), torch.Generator().manual_seed(seed)
    shuffled = {f"random {i}": best[torch.randperm(len(best), generator=generator)] for i in range(random)}
    return {"score": best, **shuffled}


def masks_but(graph: Graph, kept: Int[Tensor, "edges 2"], like: Tensor) -> Float[Tensor, "U V"]:
    """Return a mask that is 1 (ablated) for every edge but those kept."""
    masks = graph.edges().to(like)
    masks[kept[:, 0], kept[:, 1]] = 0
    return masks


def check_edges(
    model: Model,
    graph: Graph,
    prompts: Sequence[PromptPair],
    orders: dict[str, Int[Tensor, "edges 2"]],
    counts: Sequence[int],
    behaviour: Behaviour,
    circuit: str = "top",
    advance: Callable[[int], object] = lambda _: None,
) -> list[KeptEdges]:
    """Return the mean loss over prompts with some edges of each ranking kept, all others ablated.

    `orders` are rankings of all edges by name, `counts` the numbers of edges to keep, and `circuit` the way in which
    they are chosen (a name in `CIRCUITS`). `advance` is called with the number of prompts done. ValueError for numbers
    of edges that the model does not have, for a behaviour that ablating every edge does not change, and for a behaviour
    that is not valid or does not fit the prompts.
    """
    work, total = check_work(model, graph, prompts, orders, counts, behaviour, circuit)
    total.add(work.blocks(model, lambda batch: advance(len(batch))))
    return total.result()


def check_work(
    model: Model,
    graph: Graph,
    prompts: Sequence[PromptPair],
    orders: dict[str, Int[Tensor, "edges 2"]],
    counts: Sequence[int],
    behaviour: Behaviour,
    circuit: str = "top",
) -> tuple[Work[PromptPair], "CircuitTable"]:
    """Return the computation of the check from prompts, and the table that sums it; errors are as for `check_edges`."""
    every = len(graph.edge_indices())
    check_counts(counts, every)
    cases = [("score", 0), ("score", every), *((name, n) for n in sorted(counts) for name in orders)]
    kept = {(name, n): find_circuit(graph, orders[name], n, circuit) for name, n in cases}
    parts = parts_of(model, prompts, behaviour)
    ordered = [prompt for part in parts for prompt in part]
    compute = PromptLosses(Ablations(ordered, behaviour), behaviour, list(kept.values())).block
    total = CircuitTable({case: len(edges) for case, edges in kept.items()}, every, len(prompts))
    return prompts_work(parts, compute, CircuitTable.COMPUTED, total), total


@dataclass(frozen=True, eq=False)
class PromptLosses:
    """A function of prompts: their losses with some edges kept and all others ablated, for several cases."""

    ablations: Ablations
    behaviour: Behaviour
    kept: Sequence[Int[Tensor, "edges 2"]]
    """The edges that are kept in each case."""

    @torch.no_grad()
    def block(self, model: Model, prompts: Sequence[PromptPair]) -> Block:
        """Return the sum of the losses of a batch of prompts, one row for each case."""
        graph, sums = graph_of(model), list[float]()
        batch = self.ablations.batch(model, graph, prompts)
        for edges in self.kept:
            masks = EdgeMasks(graph, masks_but(graph, edges, batch.ablated[0]), batch.ablated)
            logits = model.patched_logits(batch.ids, masks)
            losses = losses_of(self.behaviour, logits, batch.prompts, batch.clean)
            check_finite(losses, lambda at: f"the loss of {place_of(prompts[at[0]], at[0])}")
            sums.append(losses.sum().item())
        return {"case": np.arange(len(sums)), "loss": np.array(sums)}


class CircuitTable:
    """The table of a check: for each case the mean loss over all prompts, and how much of the behaviour remains."""

    COMPUTED = ("case", "loss")
    columns = COLUMNS

    def __init__(self, kept: Mapping[tuple[str, int], int], edges: int, prompts: int) -> None:
        self.kept, self.edges, self.prompts = kept, edges, prompts
        self.sums = np.zeros(len(kept))

    def add(self, blocks: Iterable[Block]) -> None:
        """Add up the losses of all batches, in the order in which these come."""
        self.sums[:] = 0
        for block in blocks:
            np.add.at(self.sums, numbers(block["case"]), numbers(block["loss"]))

    def result(self) -> list[KeptEdges]:
        """Return the rows of the table. ValueError for a behaviour that ablating every edge does not change."""
        mean = dict(zip(self.kept, (self.sums / self.prompts).tolist(), strict=True))
        none, clean = mean["score", 0], mean["score", self.edges]
        if clean == none:
            raise ValueError(f"ablating every edge leaves the loss at {clean:g}: choose an ablation that changes it")
        return [
            KeptEdges(name, count, self.kept[name, count], loss, (none - loss) / (none - clean))
            for (name, count), loss in sorted(mean.items(), key=lambda item: item[0][1])
        ]

    def __call__(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the table made of all batches: one row for each ranking and number of edges."""
        self.add(blocks)
        yield block_of(self.columns, map(astuple, self.result()))


def check_made(path: Path, model: Model, behaviour: Behaviour, options: Mapping[str, Any]) -> None:
    """Raise ValueError, with all differences, where a table of edges was made with another model or other options.

    These are the ablation, and `options`: `bos`, and `batch_by`, which matters only for means over given batches.
    """
    own = {name: value for name, value in options.items() if name != "batch_by" or behaviour.ablation in PER_BATCH}
    check_fits(path, "edges score", model, {**own, "ablation": behaviour.ablation, "side": behaviour.side})
