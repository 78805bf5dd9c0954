"""Whether found neurons matter: suppressed or doubled, beside random ones, and on what they should not matter for."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decomp.io.records import Record, read_records
from decomp.locate.neurons.completions import Completion, Continuation
from decomp.locate.neurons.items import Asked

Key = tuple[str, str]
"""Fact and level: whose neurons they are."""


class CheckRow(NamedTuple):
    item: int | None
    """None for the mean over unrelated items."""
    fact: str
    """Whose neurons were changed."""
    level: str
    factor: float
    """What they were multiplied by."""
    group: str
    """`found`; `random`, as many of the same layers; `unrelated`, the found ones on other items."""
    neurons: int
    cases: int
    """Random draws, or unrelated items."""
    log2_prob: float
    """log2 P(Y | X) before, in bits; mean over unrelated items."""
    change: float
    """In bits; mean over draws, or unrelated items."""
    sd: float | None
    """Of the change over them."""


def read_neurons(path: Path, layers: int, neurons: int) -> dict[Key, Bool[Tensor, "L F"]]:
    """The neurons of each fact and level in a table of `decomp neurons`.

    ValueError for a table without the columns, or with neurons that the model does not have.
    """
    sets: dict[Key, Tensor] = defaultdict(lambda: torch.zeros(layers, neurons, dtype=torch.bool))
    for record in read_records(path, ("fact", "level", "layer", "neuron")):
        layer, neuron = (index_of(record, *bound) for bound in (("layer", layers), ("neuron", neurons)))
        sets[str(record.values["fact"]), str(record.values["level"])][layer, neuron] = True
    return dict(sets)


def match(asked: Sequence[Asked], sets: Mapping[Key, Tensor], path: Path) -> list[Asked]:
    """What was asked of the facts that have neurons. ValueError for neurons of a fact that is not among them."""
    keys = {(one.fact, one.level) for one in asked}
    if strangers := [key for key in sets if key not in keys]:
        fact, level = strangers[0]
        raise ValueError(
            f"{path} has neurons of fact {fact!r}{f' at level {level}' if level else ''}, the items have none such: "
            "give the items that the neurons were found for"
        )
    return [one for one in asked if (one.fact, one.level) in sets]


def index_of(record: Record, column: str, count: int) -> int:
    value = str(record.values[column])
    if not value.isdecimal() or int(value) >= count:
        raise ValueError(f"{record.place}: {column} must be from 0 to {count - 1} in this model, it is {value!r}")
    return int(value)


def random_like(neurons: Bool[Tensor, "L F"], generator: torch.Generator) -> Bool[Tensor, "L F"]:
    """As many neurons in every layer, drawn from all of it without replacement."""
    drawn = torch.zeros_like(neurons)
    for layer, count in enumerate(neurons.sum(1).tolist()):
        drawn[layer, torch.randperm(neurons.shape[1], generator=generator)[:count]] = True
    return drawn


@torch.no_grad()
def values_with(
    model: Any, completion: Completion, changes: Sequence[tuple[Bool[Tensor, "L F"], float]], memory: int
) -> Float[Tensor, "1+N"]:
    """log2 P(Y | X) in bits as it is, and with each set of neurons multiplied by its factor."""
    continuation = Continuation(model, completion)
    nothing = (torch.zeros_like(changes[0][0]), 1.0)
    size, rows = continuation.rows_within(memory), [nothing, *changes]
    values = []
    for part in (rows[i : i + size] for i in range(0, len(rows), size)):
        factors = torch.stack([torch.where(neurons, factor, 1.0) for neurons, factor in part])
        change = partial(multiply, factors.to(model.device, model.dtype))
        values.append(continuation("log2_prob", len(part), change))
    return torch.cat(values).double().cpu()


def multiply(factors: Float[Tensor, "R L F"], layer: int, neurons: Float[Tensor, "R Y F"]) -> Float[Tensor, "R Y F"]:
    return neurons * factors[:, layer, None]


def check_items(
    model: Any,
    asked: Sequence[Asked],
    sets: Mapping[Key, Bool[Tensor, "L F"]],
    factors: Sequence[float],
    draws: int,
    seed: int,
    memory: int,
) -> Iterator[list[CheckRow]]:
    """Per item: its fact's neurons, and the random ones, times each factor."""
    generator = torch.Generator().manual_seed(seed)
    random = {key: [random_like(found, generator) for _ in range(draws)] for key, found in sets.items()}
    for one in asked:
        key = (one.fact, one.level)
        changes = [(neurons, factor) for factor in factors for neurons in (sets[key], *random[key])]
        before, *after = values_with(model, one.target, changes, memory).split([1, *[1 + draws] * len(factors)])
        rows = []
        for factor, values in zip(factors, after, strict=True):
            change, front = values - before, (one.item, *key, factor)
            count, plain = int(sets[key].sum()), before.item()
            rows.append(CheckRow(*front, "found", count, 1, plain, change[0].item(), None))
            rows.append(CheckRow(*front, "random", count, draws, plain, *mean_and_sd(change[1:])))
        yield rows


def mean_and_sd(values: Float[Tensor, " N"]) -> tuple[float, float | None]:
    return values.mean().item(), values.std().item() if len(values) > 1 else None


def check_unrelated(
    model: Any,
    others: Sequence[Asked],
    sets: Mapping[Key, Bool[Tensor, "L F"]],
    factors: Sequence[float],
    own_file: bool,
    memory: int,
) -> Iterator[CheckRow]:
    """Every fact's neurons on completions of other facts (all of another file), at its own level of edits."""
    seen: dict[tuple[Key, float], list[tuple[float, float]]] = defaultdict(list)
    for other in others:
        keys = [k for k in sets if not (own_file and k[0] == other.fact) and (k[1] == other.level or not own_file)]
        asked = [(key, factor) for key in keys for factor in factors]
        if asked:
            before, *after = values_with(
                model, other.target, [(sets[key], factor) for key, factor in asked], memory
            ).tolist()
            for which, value in zip(asked, after, strict=True):
                seen[which].append((before, value - before))
    for (key, factor), pairs in seen.items():
        before, change = torch.tensor(pairs, dtype=torch.double).unbind(1)
        count = int(sets[key].sum())
        yield CheckRow(None, *key, factor, "unrelated", count, len(pairs), before.mean().item(), *mean_and_sd(change))
