"""Batches of prompts that fit into the memory, with the outputs that ablated sources have instead of their own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.locate.edges.behaviour import check_prompts
from decomp.locate.edges.graph import Graph, Outputs, graph_of
from decomp.locate.edges.passes import UniformMask
from decomp.locate.edges.prompts import PromptPair, place_of
from decomp.locate.edges.request import MEANS, OVER_TOKENS, PER_BATCH, Behaviour
from decomp.locate.limits import MOST_TOGETHER, rows_within
from decomp.tables.blocks import Block
from decomp.tables.work import Summary, Work, item_of


@dataclass(frozen=True, eq=False)
class Batch:
    """Prompts of one length that are computed together, with the outputs that ablated sources have."""

    prompts: Sequence[PromptPair]
    ids: Int[Tensor, "B T"]
    """The token ids of the clean prompts."""
    ablated: Outputs
    clean: Float[Tensor, "B V"] | None = None
    """The model's logits for the clean prompts; None unless the loss compares with them."""


def bytes_of_prompt(graph: Graph, length: int, itemsize: int) -> int:
    """Return about how many bytes one prompt of a length takes, with gradients and the outputs of all sources."""
    operators = [stage.operator for stage in graph.stages if stage.operator is not None]
    width = operators[0].hidden
    widest = max(s.destinations.stop - s.destinations.start for s in graph.stages)
    count = (2 * len(graph.sources) + 4 * widest + 12 * len(graph.stages)) * width
    count += sum(2 * operator.heads * length + 8 * operator.neurons for operator in operators)
    return count * length * itemsize


def in_batches(graph: Graph, prompts: Sequence[PromptPair], memory: int, itemsize: int) -> Iterator[list[PromptPair]]:
    """Yield lists of prompts of one length, as many as fit into the memory, but at most `MOST_TOGETHER`.

    ValueError where not even one prompt fits.
    """
    for length, group in groupby(sorted(prompts, key=len), key=len):
        same = list(group)
        fitting = rows_within(memory, bytes_of_prompt(graph, length, itemsize), f"a prompt of {length} tokens")
        size = min(fitting, MOST_TOGETHER)
        yield from (same[i : i + size] for i in range(0, len(same), size))


def outputs_on(model: Model, graph: Graph, prompts: Sequence[PromptPair], side: str) -> list[Float[Tensor, "B T _"]]:
    """Return the output of every stage in an ordinary pass over one side (`clean` or `corrupt`) of the pairs."""
    patch = UniformMask(graph)
    model.patched_logits(ids_of(model, prompts, side), patch)
    return patch.outputs


def ids_of(model: Model, prompts: Sequence[PromptPair], side: str) -> Int[Tensor, "B T"]:
    """Return the token ids of one side (`clean` or `corrupt`) of pairs of one length."""
    return torch.stack([getattr(prompt, side) for prompt in prompts]).to(model.device)


def mean_outputs(
    model: Model, graph: Graph, parts: Sequence[Sequence[PromptPair]], behaviour: Behaviour
) -> list[Float[Tensor, "1 _ _"]]:
    """Return the mean of every stage's output over prompts, for the ablations in `OVER_TOKENS` also over positions."""
    over_tokens = behaviour.ablation in OVER_TOKENS
    sides = ("clean", "corrupt") if behaviour.side == "both" else (behaviour.side,)
    sums: list[Any] = [0] * len(graph.stages)
    for part in parts:
        for side in sides:
            outputs = outputs_on(model, graph, part, side)
            summed = [output.sum((0, 1) if over_tokens else 0, keepdim=True) for output in outputs]
            sums = [total + output for total, output in zip(sums, summed, strict=True)]
    count = len(sides) * sum(len(prompt) if over_tokens else 1 for part in parts for prompt in part)
    return [total / count for total in sums]


def given_batches(prompts: Sequence[PromptPair], behaviour: Behaviour) -> list[list[PromptPair]]:
    """Return the groups of prompts whose ablations share their means: each given batch, or all prompts."""
    by_name: dict[str | None, list[PromptPair]] = {}
    for prompt in prompts:
        by_name.setdefault(group_of(prompt, behaviour), []).append(prompt)
    return list(by_name.values())


def group_of(prompt: PromptPair, behaviour: Behaviour) -> str | None:
    """Return the given batch over which a prompt's means are taken; None for means over all prompts."""
    return prompt.batch if behaviour.ablation in PER_BATCH else None


def parts_of(model: Model, prompts: Sequence[PromptPair], behaviour: Behaviour) -> list[list[PromptPair]]:
    """Return the lists of prompts that are computed together.

    ValueError for prompts that do not fit it, and for too little memory.
    """
    check_prompts(behaviour, prompts)
    graph, itemsize = graph_of(model), model.dtype.itemsize
    groups = given_batches(prompts, behaviour)
    return [part for group in groups for part in in_batches(graph, group, behaviour.memory, itemsize)]


@dataclass(frozen=True, eq=False)
class Ablations:
    """The outputs that replace those of ablated sources; means over prompts are computed once for all batches."""

    prompts: Sequence[PromptPair]
    behaviour: Behaviour
    means: dict[str | None, Outputs] = field(default_factory=dict)
    """The means computed so far, by the given batch that they are over; None stands for all prompts."""

    def batch(self, model: Model, graph: Graph, part: Sequence[PromptPair]) -> Batch:
        """Return the batch of some prompts, with their ablated outputs."""
        behaviour = self.behaviour
        ids = ids_of(model, part, "clean")
        clean = model.patched_logits(ids, UniformMask(graph)) if behaviour.answer_function == "kl" else None
        means = self.means_of(model, graph, group_of(part[0], behaviour)) if behaviour.ablation in MEANS else None
        return Batch(part, ids, ablated_outputs(model, graph, part, behaviour, means), clean)

    def means_of(self, model: Model, graph: Graph, name: str | None) -> Outputs:
        """Return the means over the given batch of a name, or over all prompts for None."""
        if name not in self.means:
            own = [prompt for prompt in self.prompts if group_of(prompt, self.behaviour) == name]
            parts = list(in_batches(graph, own, self.behaviour.memory, model.dtype.itemsize))
            self.means[name] = mean_outputs(model, graph, parts, self.behaviour)
        return self.means[name]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state that another process gets, without the means, which it computes itself."""
        return {"prompts": self.prompts, "behaviour": self.behaviour, "means": {}}


def prompts_work(
    parts: Sequence[Sequence[PromptPair]],
    compute: Callable[[Model, Sequence[PromptPair]], Block],
    computed: tuple[str, ...],
    summary: Summary,
) -> Work[PromptPair]:
    """Return the computation of a table from prompts, in the batches that `parts_of` has made."""
    prompts = [prompt for part in parts for prompt in part]
    plan = [item_of(place_of(prompt, number), len(prompt)) for number, prompt in enumerate(prompts)]
    ends = [0, *accumulate(map(len, parts))]
    return Work("prompt", prompts, plan, [range(*pair) for pair in pairwise(ends)], compute, computed, summary)


def ablated_outputs(
    model: Model, graph: Graph, part: Sequence[PromptPair], behaviour: Behaviour, means: Outputs | None
) -> Outputs:
    """Return the ablated output of every stage for prompts of one length, of shape (B, T, width)."""
    if means is not None:
        return [mean.expand(len(part), len(part[0]), -1) for mean in means]
    outputs = outputs_on(model, graph, part, behaviour.side)
    return [torch.zeros_like(output) for output in outputs] if behaviour.ablation == "zero" else outputs
