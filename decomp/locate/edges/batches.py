"""Prompts that are computed together, within a memory bound, and what their sources are replaced by."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.locate.edges.behaviour import MEANS, OVER_TOKENS, PER_BATCH, Setting
from decomp.locate.edges.graph import Graph, Outputs, graph_of
from decomp.locate.edges.passes import UniformMask
from decomp.locate.edges.prompts import PromptPair, place_of
from decomp.locate.limits import MOST_TOGETHER, rows_within
from decomp.tables.blocks import Block
from decomp.tables.work import Summary, Work, item_of


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
    """Yield prompts of one length together, as many as fit into the memory, and `MOST_TOGETHER` at most.

    ValueError where not even one does.
    """
    for length, group in groupby(sorted(prompts, key=len), key=len):
        same = list(group)
        fitting = rows_within(memory, bytes_of_prompt(graph, length, itemsize), f"a prompt of {length} tokens")
        size = min(fitting, MOST_TOGETHER)
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
    by_name: dict[str | None, list[PromptPair]] = {}
    for prompt in prompts:
        by_name.setdefault(group_of(prompt, setting), []).append(prompt)
    return list(by_name.values())


def group_of(prompt: PromptPair, setting: Setting) -> str | None:
    """Return the given batch over which a prompt's means are, None for all prompts."""
    return prompt.batch if setting.ablation in PER_BATCH else None


def parts_of(model: Model, prompts: Sequence[PromptPair], setting: Setting) -> list[list[PromptPair]]:
    """Return the prompts that are computed together. ValueError as in `Setting.check`, and for too little memory."""
    setting.check(prompts)
    graph, itemsize = graph_of(model), model.dtype.itemsize
    groups = given_batches(prompts, setting)
    return [part for group in groups for part in in_batches(graph, group, setting.memory, itemsize)]


@dataclass(frozen=True, eq=False)
class Ablations:
    """What the sources of prompts are replaced by: for means, what they are over is computed once for all parts."""

    prompts: Sequence[PromptPair]
    setting: Setting
    means: dict[str | None, Outputs] = field(default_factory=dict)
    """By the given batch, as far as they are known."""

    def batch(self, model: Model, graph: Graph, part: Sequence[PromptPair]) -> Batch:
        """Return prompts that are computed together, with the ablated outputs that belong to them."""
        setting = self.setting
        ids = ids_of(model, part, "clean")
        clean = model.patched_logits(ids, UniformMask(graph)) if setting.answer_function == "kl" else None
        means = self.means_of(model, graph, group_of(part[0], setting)) if setting.ablation in MEANS else None
        return Batch(part, ids, ablated_outputs(model, graph, part, setting, means), clean)

    def means_of(self, model: Model, graph: Graph, name: str | None) -> Outputs:
        """Return the means over a given batch, or over all prompts."""
        if name not in self.means:
            own = [prompt for prompt in self.prompts if group_of(prompt, self.setting) == name]
            parts = list(in_batches(graph, own, self.setting.memory, model.dtype.itemsize))
            self.means[name] = mean_outputs(model, graph, parts, self.setting)
        return self.means[name]

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process is sent: means are of the model of one process."""
        return {"prompts": self.prompts, "setting": self.setting, "means": {}}


def prompts_work(
    parts: Sequence[Sequence[PromptPair]],
    compute: Callable[[Model, Sequence[PromptPair]], Block],
    computed: tuple[str, ...],
    summary: Summary,
) -> Work[PromptPair]:
    """Return prompts, those together that `parts_of` puts together, as what a table is computed from."""
    prompts = [prompt for part in parts for prompt in part]
    plan = [item_of(place_of(prompt, number), len(prompt)) for number, prompt in enumerate(prompts)]
    ends = [0, *accumulate(map(len, parts))]
    return Work("prompt", prompts, plan, [range(*pair) for pair in pairwise(ends)], compute, computed, summary)


def ablated_outputs(
    model: Model, graph: Graph, part: Sequence[PromptPair], setting: Setting, means: Outputs | None
) -> Outputs:
    """Return what takes the place of every stage's outputs for prompts of one length, shapes (B, T, width)."""
    if means is not None:
        return [mean.expand(len(part), len(part[0]), -1) for mean in means]
    outputs = outputs_on(model, graph, part, setting.side)
    return [torch.zeros_like(output) for output in outputs] if setting.ablation == "zero" else outputs
