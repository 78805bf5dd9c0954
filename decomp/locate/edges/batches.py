"""Prompts that are computed together, within a memory bound, and what their sources are replaced by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.rules import AttentionMaps, MLPMaps
from decomp.locate.edges.behaviour import Setting
from decomp.locate.edges.graph import Graph, Outputs
from decomp.locate.edges.passes import UniformMask
from decomp.locate.edges.prompts import PromptPair


@dataclass(frozen=True)
class Batch:
    """Prompts of one length, and what their sources are replaced by."""

    prompts: Sequence[PromptPair]
    ids: Int[Tensor, "B T"]
    """Of the clean prompts."""
    ablated: Outputs


def bytes_of_prompt(graph: Graph, length: int, itemsize: int) -> int:
    """About what one prompt takes: differences of all sources, one stage's gradients, and the recorded pass."""
    width = next(s.maps.output.weight.shape[1] for s in graph.stages if isinstance(s.maps, AttentionMaps))
    widest = max(s.destinations.stop - s.destinations.start for s in graph.stages)
    count = (2 * len(graph.sources) + 4 * widest + 12 * len(graph.stages)) * width
    for stage in graph.stages:
        if isinstance(stage.maps, AttentionMaps):
            count += 2 * stage.maps.heads * length
        elif isinstance(stage.maps, MLPMaps):
            count += 8 * stage.maps.up.weight.shape[1]
    return count * length * itemsize


def in_batches(graph: Graph, prompts: Sequence[PromptPair], memory: int, itemsize: int) -> Iterator[list[PromptPair]]:
    """Prompts of one length together, as many as fit into the memory, at least one."""
    for length, group in groupby(sorted(prompts, key=len), key=len):
        same = list(group)
        size = max(1, memory // bytes_of_prompt(graph, length, itemsize))
        yield from (same[i : i + size] for i in range(0, len(same), size))


def outputs_on(model: Any, graph: Graph, prompts: Sequence[PromptPair], side: str) -> list[Float[Tensor, "B T _"]]:
    """What every stage gives in an ordinary pass over one side of the pairs."""
    patch = UniformMask(graph)
    model.patched_logits(torch.stack([getattr(prompt, side) for prompt in prompts]).to(model.device), patch)
    return patch.outputs


def mean_outputs(
    model: Any, graph: Graph, parts: Sequence[Sequence[PromptPair]], setting: Setting
) -> list[Float[Tensor, "1 _ _"]]:
    """Means over all prompts, and with `token_mean` over all positions."""
    dims = 0 if setting.ablation == "mean" else (0, 1)
    sums: list[Any] = [0] * len(graph.stages)
    for part in parts:
        outputs = outputs_on(model, graph, part, setting.side)
        sums = [total + output.sum(dims, keepdim=True) for total, output in zip(sums, outputs, strict=True)]
    count = sum(1 if setting.ablation == "mean" else len(prompt) for part in parts for prompt in part)
    return [total / count for total in sums]


def batches(model: Any, graph: Graph, prompts: Sequence[PromptPair], setting: Setting) -> Iterator[Batch]:
    """Batches with the ablated outputs that belong to them. ValueError as in `Setting.check`."""
    setting.check(prompts)
    parts = list(in_batches(graph, prompts, setting.memory, model.dtype.itemsize))
    means = mean_outputs(model, graph, parts, setting) if setting.ablation in ("mean", "token_mean") else []
    for part in parts:
        ids = torch.stack([prompt.clean for prompt in part]).to(model.device)
        if means:
            ablated = [mean.expand(*ids.shape, -1) for mean in means]
        else:
            ablated = outputs_on(model, graph, part, setting.side)
            if setting.ablation == "zero":
                ablated = [torch.zeros_like(output) for output in ablated]
        yield Batch(part, ids, ablated)
