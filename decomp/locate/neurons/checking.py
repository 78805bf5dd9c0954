"""Checking found neurons: suppressed or doubled, compared with random neurons, and on unrelated items."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decomp.core.model import Model
from decomp.corpus.batches import in_batches
from decomp.corpus.tokenizer import Tokenizer
from decomp.io.digests import digest
from decomp.io.records import Fields, Record
from decomp.locate.limits import check_finite, check_numbers
from decomp.locate.neurons.completions import Completion, Continuation
from decomp.locate.neurons.items import Item, open_items
from decomp.locate.neurons.spans import CUTS
from decomp.locate.tables import check_fits, read_rows
from decomp.tables.blocks import Block, block_of, equal_to, rows_of, take
from decomp.tables.files import truth
from decomp.tables.provenance import read_provenance
from decomp.tables.work import Work, item_of

Key = tuple[str, str]
"""The fact, and the level of edits, that neurons were found for."""
Case = tuple[Item, bool]
"""An item, and whether the neurons of other facts are changed on it."""


class CheckRow(NamedTuple):
    """A row of the check: the change of a completion's log probability when some neurons are multiplied by a factor."""

    item: int | None
    """The item's row in its file, counted from 0; None for the mean over unrelated items."""
    fact: str
    """The fact whose neurons were changed."""
    level: str
    """The level of edits that the neurons were found at; empty for prompts."""
    factor: float
    """The factor that the neurons were multiplied by."""
    group: str
    """The kind of row: `found` neurons; as many `random` ones of the same layers; found ones on `unrelated` items."""
    neurons: int
    """The number of neurons that were changed."""
    cases: int
    """The number of random draws, or of unrelated items, that the row is a mean over; else 1."""
    log2_prob: float
    """log2 P(Y | X) before the change, in bits; for unrelated items the mean over them."""
    change: float
    """The change of log2 P(Y | X), in bits; the mean over random draws, or over unrelated items."""
    sd: float | None
    """The standard deviation of the change over random draws or unrelated items; None for a single one."""


def read_neurons(path: Path, layers: int, neurons: int) -> dict[Key, Bool[Tensor, "L F"]]:
    """Return the neurons of each fact and level that a table of `decomp neurons` says were found.

    ValueError for a table without the columns, with neurons that the model does not have, or without any found.
    """
    sets: dict[Key, Tensor] = defaultdict(lambda: torch.zeros(layers, neurons, dtype=torch.bool))
    for record in read_rows(path, ("fact", "level", "layer", "neuron")):
        layer, neuron = (index_of(record, *bound) for bound in (("layer", layers), ("neuron", neurons)))
        if is_found(record):
            sets[str(record.values["fact"] or ""), str(record.values["level"] or "")][layer, neuron] = True
    if not sets:
        raise ValueError(f"{path} has no neuron that was found: find some with a lower --threshold or --share")
    return dict(sets)


def is_found(record: Record) -> bool:
    """Return the truth value in the column `found`, True without one. ValueError, with the place, for another value."""
    try:
        return truth(record.values.get("found", True))
    except ValueError as error:
        raise ValueError(f"{record.place}: found: {error}") from error


def check_items_of(path: Path, items: Sequence[Item], file: Path) -> None:
    """Raise ValueError for a table of neurons that were found for other items than those of this file.

    It matters only for facts without a name, which are recognised by the number of their item.
    """
    there = (read_provenance(path) or {}).get("options", {}).get("items_file")
    if there is None or all(one.named for one in items):
        return
    if there[1] != digest([file.read_bytes()]):
        raise ValueError(
            f"{path} has neurons for other items ({there[0]}), whose facts go by their numbers: give the same items, "
            "or name their facts in a column fact"
        )


@dataclass(frozen=True, eq=False)
class CheckInputs:
    """The input of a check: neurons that were found, and the items that they are checked on."""

    sets: Mapping[Key, Bool[Tensor, "L F"]]
    """The neurons found for each fact and level, as a mask by layer and neuron."""
    items: Sequence[Item]
    """The items of the facts that have neurons."""
    unrelated: Sequence[Item] | None
    """The unrelated items, of another file; None where items of other facts are taken instead."""


def open_check(
    model: Model,
    tokenizer: Tokenizer,
    table: Path,
    items: Path,
    unrelated: Path | None = None,
    bos: bool = True,
    neurons: str = "activation",
    fields: Fields = None,
) -> CheckInputs:
    """Read a table of `decomp neurons`, and the file of the items that its neurons were found for.

    `neurons` is the kind of values that was scored (`activation` or `pre-activation`), `unrelated` another file of
    items. ValueError for a table that was made with another model, kind of neurons, beginning of sequence, or items;
    for one without neurons; and for files that can't be read.
    """
    check_fits(table, "neurons find", model, {"bos": bos, "neurons": neurons})
    sets = read_neurons(table, *model.neurons_shape())
    levels = tuple(dict.fromkeys(level for _, level in sets if level in CUTS)) or ("token",)
    every = open_items(model, tokenizer, items, levels, bos=bos, fields=fields)
    others = None if unrelated is None else open_items(model, tokenizer, unrelated, levels[:1], bos=bos, fields=fields)
    check_items_of(table, every, items)
    return CheckInputs(sets, match(every, sets, table), others)


def match(items: Sequence[Item], sets: Mapping[Key, Tensor], path: Path) -> list[Item]:
    """Return the items of facts that have neurons. ValueError for neurons of a fact that no item has."""
    keys = {(one.fact, one.level) for one in items}
    if strangers := [key for key in sets if key not in keys]:
        fact, level = strangers[0]
        raise ValueError(
            f"{path} has neurons of fact {fact!r}{f' at level {level}' if level else ''}, the items have none such: "
            "give the items that the neurons were found for"
        )
    return [one for one in items if (one.fact, one.level) in sets]


def index_of(record: Record, column: str, count: int) -> int:
    """Return the index in a column of a row, below `count`. ValueError, with the place, for another value."""
    value = str(record.values[column])
    if not value.isdecimal() or int(value) >= count:
        raise ValueError(f"{record.place}: {column} must be from 0 to {count - 1} in this model, it is {value!r}")
    return int(value)


def random_like(neurons: Bool[Tensor, "L F"], generator: torch.Generator) -> Bool[Tensor, "L F"]:
    """Return random neurons: in every layer as many as given, drawn from the whole layer without replacement."""
    drawn = torch.zeros_like(neurons)
    for layer, count in enumerate(neurons.sum(1).tolist()):
        drawn[layer, torch.randperm(neurons.shape[1], generator=generator)[:count]] = True
    return drawn


@torch.no_grad()
def values_with(
    model: Model,
    completion: Completion,
    changes: Sequence[tuple[Bool[Tensor, "L F"], float]],
    memory: int,
    neurons: str = "activation",
) -> Float[Tensor, "1+N"]:
    """Return log2 P(Y | X) in bits: first unchanged, then with each set of neurons multiplied by its factor."""
    continuation = Continuation(model, completion, neurons)
    nothing = (torch.zeros_like(changes[0][0]), 1.0)
    size, rows = continuation.rows_within(memory), [nothing, *changes]
    values = []
    for part in (rows[i : i + size] for i in range(0, len(rows), size)):
        factors = torch.stack([torch.where(chosen, factor, 1.0) for chosen, factor in part])
        change = partial(multiply, factors.to(model.device, model.dtype))
        values.append(continuation("log2_prob", len(part), change))
    return torch.cat(values).double().cpu()


def multiply(factors: Float[Tensor, "R L F"], layer: int, neurons: Float[Tensor, "R Y F"]) -> Float[Tensor, "R Y F"]:
    """Return the neurons of a layer, times the factors of each variant."""
    return neurons * factors[:, layer, None]


@dataclass(frozen=True, eq=False)
class Interventions:
    """A function of items: the changes of their completions when found, random and unrelated neurons are multiplied."""

    sets: Mapping[Key, Bool[Tensor, "L F"]]
    """The neurons found for each fact and level."""
    random: Mapping[Key, Sequence[Bool[Tensor, "L F"]]]
    """The random sets of neurons to compare with, for each fact and level."""
    factors: Sequence[float]
    """The factors that neurons are multiplied by."""
    memory: int
    """The bytes of memory for all that is held beside the model."""
    neurons: str = "activation"
    """The kind of neurons: `activation`, or `pre-activation`."""
    own_file: bool = True
    """Whether unrelated items are those of other facts in the same file."""

    def block(self, model: Model, cases: Sequence[Case]) -> Block:
        """Return the rows of some cases as a block of columns."""
        rows = (self.of_unrelated if unrelated else self.of_item for _, unrelated in cases)
        return block_of(
            CheckRow._fields, chain.from_iterable(of(model, item) for of, (item, _) in zip(rows, cases, strict=True))
        )

    def of_item(self, model: Model, one: Item) -> Iterator[CheckRow]:
        """Yield the rows of an item: its fact's neurons, and random ones, multiplied by each factor."""
        key = (one.fact, one.level)
        random = self.random[key]
        changes = [(chosen, factor) for factor in self.factors for chosen in (self.sets[key], *random)]
        values = values_with(model, one.target, changes, self.memory, self.neurons)
        check_finite(values, lambda at: f"{one.place}: log2 P with changed neurons ({at[0]})")
        before, *after = values.split([1, *[1 + len(random)] * len(self.factors)])
        for factor, changed in zip(self.factors, after, strict=True):
            change, shared = changed - before, (one.number, *key, factor)
            count, plain = int(self.sets[key].sum()), before.item()
            yield CheckRow(*shared, "found", count, 1, plain, change[0].item(), None)
            yield CheckRow(*shared, "random", count, len(random), plain, *mean_and_sd(change[1:]))

    def of_unrelated(self, model: Model, other: Item) -> Iterator[CheckRow]:
        """Yield a row for the neurons of every other fact, and each factor, on an item at its level of edits."""
        own = self.own_file
        keys = [k for k in self.sets if not (own and k[0] == other.fact) and (k[1] == other.level or not own)]
        changes = [(key, factor) for key in keys for factor in self.factors]
        if changes:
            pairs = [(self.sets[key], factor) for key, factor in changes]
            before, *after = values_with(model, other.target, pairs, self.memory, self.neurons).tolist()
            for (key, factor), value in zip(changes, after, strict=True):
                count = int(self.sets[key].sum())
                yield CheckRow(None, *key, factor, "unrelated", count, 1, before, value - before, None)


def interventions(
    check: CheckInputs, factors: Sequence[float], draws: int, seed: int, memory: int, neurons: str
) -> Interventions:
    """Return the function that checks neurons, with random ones drawn. ValueError for bad or repeated factors."""
    check_numbers("--factor", factors)
    generator = torch.Generator().manual_seed(seed)
    random = {key: [random_like(found, generator) for _ in range(draws)] for key, found in check.sets.items()}
    return Interventions(check.sets, random, factors, memory, neurons, check.unrelated is None)


def check_work(
    check: CheckInputs,
    factors: Sequence[float] = (0.0, 2.0),
    draws: int = 20,
    seed: int = 0,
    memory: int = 2**30,
    neurons: str = "activation",
) -> Work[Case]:
    """Return the computation of a check's table, from its items and then the unrelated ones.

    `factors` are those that neurons are multiplied by, `draws` is the number of random sets to compare with. ValueError
    for factors that are not finite or given twice.
    """
    others = check.items if check.unrelated is None else check.unrelated
    cases = [*((item, False) for item in check.items), *((item, True) for item in others)]
    plan = [
        item_of(f"{item.place}, unrelated" if unrelated else item.place, len(item.target.context))
        for item, unrelated in cases
    ]
    compute = interventions(check, factors, draws, seed, memory, neurons).block
    return Work("item", cases, plan, in_batches([1] * len(cases), 1, 0), compute, CheckRow._fields, CheckTable())


class CheckTable:
    """The table of a check: the rows of all items, and at the end the means over unrelated items."""

    columns = CheckRow._fields

    def __call__(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the rows of all items, then the means over unrelated ones."""
        seen: dict[tuple[Key, float, int], list[tuple[float, float]]] = defaultdict(list)
        for block in blocks:
            unrelated = equal_to(block["group"], "unrelated")
            for row in map(CheckRow._make, rows_of(take(block, unrelated))):
                seen[(row.fact, row.level), row.factor, row.neurons].append((row.log2_prob, row.change))
            yield take(block, ~unrelated)
        yield block_of(self.columns, (mean_row(*which, pairs) for which, pairs in seen.items()))


def mean_row(key: Key, factor: float, count: int, pairs: Sequence[tuple[float, float]]) -> CheckRow:
    """Return the row of one fact's neurons on all unrelated items; `pairs` are log2 P before, and its change."""
    before, change = torch.tensor(pairs, dtype=torch.double).unbind(1)
    return CheckRow(None, *key, factor, "unrelated", count, len(pairs), before.mean().item(), *mean_and_sd(change))


def mean_and_sd(values: Float[Tensor, " N"]) -> tuple[float, float | None]:
    """Return the mean of values, and their standard deviation; None instead of that for a single value."""
    return values.mean().item(), values.std().item() if len(values) > 1 else None


def check_neurons(
    model: Model,
    check: CheckInputs,
    factors: Sequence[float] = (0.0, 2.0),
    draws: int = 20,
    seed: int = 0,
    memory: int = 2**30,
    neurons: str = "activation",
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[list[CheckRow]]:
    """Suppress or double the neurons found for facts: yield the rows of each item, then those on unrelated items.

    Unrelated items are those of other facts where the check has none. `factors` are those that neurons are multiplied
    by, `draws` is the number of random sets to compare with. `advance` is called with the number of items done.
    ValueError for factors that are not finite or given twice, for too little memory, and for changes that are not
    finite.

        check = open_check(model, tokenizer, Path("neurons.tsv"), Path("data/facts.jsonl"))
        rows = [row for each in check_neurons(model, check) for row in each]
    """
    work = check_work(check, factors, draws, seed, memory, neurons)
    for block in work.table(work.blocks(model, lambda batch: advance(len(batch)))):
        yield [CheckRow._make(row) for row in rows_of(block)]
