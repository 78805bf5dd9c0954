"""Prompts that are computed together, within a memory bound, and what their sources are replaced by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.locate.edges.behaviour import MEANS, OVER_TOKENS, PER_BATCH, Setting
from decomp.locate.edges.graph import Graph, Outputs
from decomp.locate.edges.passes import UniformMask
from decomp.locate.edges.prompts import PromptPair
from decomp.locate.limits import rows_within


@dataclass(frozen=True, eq=False)
class Batch:
    """Prompts of one length, and what their sources are replaced by."""

    prompts: Sequence[PromptPair]
    ids: Int[Tensor, "B T"]
    """Of the clean prompts."""
    ablated: Outputs
    clean: Float[Tensor, "B V"] | None = None
    """The model's own logits, where the loss compares with them."""


def bytes_of_prompt(graph: Graph, length: int, itemsize: int) -> int:
    """Return about what one prompt takes: differences of all sources, one stage's gradients, and the recorded pass."""
    operators = [stage.operator for stage in graph.stages if stage.operator is not None]
    width = operators[0].hidden
    widest = max(s.destinations.stop - s.destinations.start for s in graph.stages)
    count = (2 * len(graph.sources) + 4 * widest + 12 * len(graph.stages)) * width
    count += sum(2 * operator.heads * length + 8 * operator.neurons for operator in operators)
    return count * length * itemsize


def in_batches(graph: Graph, prompts: Sequence[PromptPair], memory: int, itemsize: int) -> Iterator[list[PromptPair]]:
    """Yield prompts of one length together, as many as fit into the memory.

    ValueError where not even one does.
    """
    for length, group in groupby(sorted(prompts, key=len), key=len):
        same = list(group)
        size = rows_within(memory, bytes_of_prompt(graph, length, itemsize), f"a prompt of {length} tokens")
        yield from (same[i : i + size] for i in range(0, len(same), size))


def outputs_on(model: Model, graph: Graph, prompts: Sequence[PromptPair], side: str) -> list[Float[Tensor, "B T _"]]:
    """Return what every stage gives in an ordinary pass over one side of the pairs."""
    patch = UniformMask(graph)
    model.patched_logits(ids_of(model, prompts, side), patch)
    return patch.outputs


def ids_of(model: Model, prompts: Sequence[PromptPair], side: str) -> Int[Tensor, "B T"]:
    """Return the token ids of the `clean` or `corrupt` prompts of pairs of one length."""
    return torch.stack([getattr(prompt, side) for prompt in prompts]).to(model.device)


def mean_outputs(
    model: Model, graph: Graph, parts: Sequence[Sequence[PromptPair]], setting: Setting
) -> list[Float[Tensor, "1 _ _"]]:
    """Return means over prompts, and by the ablations of `OVER_TOKENS` over their positions too."""
    over_tokens = setting.ablation in OVER_TOKENS
    sides = ("clean", "corrupt") if setting.side == "both" else (setting.side,)
    sums: list[Any] = [0] * len(graph.stages)
    for part in parts:
        for side in sides:
            outputs = outputs_on(model, graph, part, side)
            summed = [output.sum((0, 1) if over_tokens else 0, keepdim=True) for output in outputs]
            sums = [total + output for total, output in zip(sums, summed, strict=True)]
    count = len(sides) * sum(len(prompt) if over_tokens else 1 for part in parts for prompt in part)
    return [total / count for total in sums]


def given_batches(prompts: Sequence[PromptPair], setting: Setting) -> list[list[PromptPair]]:
    """Return the prompts that are ablated alike: those of each given batch, or all."""
    if setting.ablation not in PER_BATCH:
        return [list(prompts)]
    by_name: dict[str | None, list[PromptPair]] = {}
    for prompt in prompts:
        by_name.setdefault(prompt.batch, []).append(prompt)
    return list(by_name.values())


def batches(model: Model, graph: Graph, prompts: Sequence[PromptPair], setting: Setting) -> Iterator[Batch]:
    """Yield batches with the ablated outputs that belong to them.

    ValueError as in `Setting.check`, and for too little memory.
    """
    setting.check(prompts)
    for group in given_batches(prompts, setting):
        parts = list(in_batches(graph, group, setting.memory, model.dtype.itemsize))
        means = mean_outputs(model, graph, parts, setting) if setting.ablation in MEANS else None
        for part in parts:
            ids = ids_of(model, part, "clean")
            clean = model.patched_logits(ids, UniformMask(graph)) if setting.answer_function == "kl" else None
            yield Batch(part, ids, ablated_outputs(model, graph, part, setting, means), clean)


def ablated_outputs(
    model: Model, graph: Graph, part: Sequence[PromptPair], setting: Setting, means: Outputs | None
) -> Outputs:
    """Return what takes the place of every stage's outputs for prompts of one length, shapes (B, T, width)."""
    if means is not None:
        return [mean.expand(len(part), len(part[0]), -1) for mean in means]
    outputs = outputs_on(model, graph, part, setting.side)
    return [torch.zeros_like(output) for output in outputs] if setting.ablation == "zero" else outputs
