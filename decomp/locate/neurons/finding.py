"""Finding the neurons of items, for the command `decomp neurons find` and for notebooks."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from jaxtyping import Bool, Float
from torch import Tensor

from decomp.core.model import Model
from decomp.corpus.batches import in_batches
from decomp.locate.neurons.items import Item
from decomp.locate.neurons.request import NeuronRequest
from decomp.locate.neurons.rows import CountRow, NeuronRow, found, layer_rows, neuron_rows, shares
from decomp.locate.neurons.scoring import RESIDUAL_WARNED, NeuronScores, score_completions
from decomp.tables.blocks import Block, Row, block_of, present, rows_of, take
from decomp.tables.work import Work, WorkItem, item_of

COMPUTED = (*NeuronRow._fields, "neurons")
"""The columns of what is computed for each item: rows of neurons, and rows of layers with a number of neurons."""
ENDS = ("item", "level", "residual", "effect")


@dataclass(frozen=True, eq=False)
class FoundNeurons:
    """The result for one item: the scores of all neurons, those found, and the share of prompts that found each."""

    item: Item
    """The item."""
    scores: NeuronScores
    """The scores of all neurons."""
    kept: Bool[Tensor, "L F"]
    """The neurons found, as a mask by layer and neuron."""
    shared: Float[Tensor, "L F"]
    """The fraction of the fact's prompts that have found each neuron."""


def find_neurons(
    model: Model,
    items: Sequence[Item],
    request: NeuronRequest = NeuronRequest(),  # noqa: B008
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[FoundNeurons]:
    """Find the neurons that completions rest on, by integrated gradients (Dai et al. 2022): yield each item's result.

    Items of one fact follow one another. `advance` is called with the number of items done. ValueError for a request
    that is not valid, for too little memory, and for scores that are not finite.

        items = open_items(model, tokenizer, Path("data/facts.jsonl"))
        for one in find_neurons(model, items, NeuronRequest(threshold=0.5)):
            print(one.item.fact, one.kept.nonzero())
    """
    request.check()
    for prompts in by_fact(items):
        yield from found_of_fact(model, prompts, request)
        advance(len(prompts))


def by_fact(items: Sequence[Item]) -> list[tuple[Item, ...]]:
    """Return the items grouped by fact and level of edits: the prompts of each fact."""
    facts: dict[tuple[str, str], list[Item]] = {}
    for one in items:
        facts.setdefault((one.fact, one.level), []).append(one)
    return [tuple(prompts) for prompts in facts.values()]


def found_of_fact(model: Model, prompts: Sequence[Item], request: NeuronRequest) -> Iterator[FoundNeurons]:
    """Yield the result for each prompt of one fact; neurons are found that enough of the prompts share."""
    results = [score_completions(model, one.completions, request, one.place) for one in prompts]
    masks = [found(result.scores.sum(1), request.threshold) for result in results]
    shared = shares(masks)
    for one, result, mask in zip(prompts, results, masks, strict=True):
        yield FoundNeurons(one, result, mask & (shared >= request.share), shared)


def neurons_work(
    model: Model, items: Sequence[Item], request: NeuronRequest, table: "NeuronTable"
) -> Work[tuple[Item, ...]]:
    """Return the computation of a table of neurons from facts. ValueError for a request that is not valid."""
    request.check()
    facts = by_fact(items)
    plan = [fact_item(prompts) for prompts in facts]
    rows = partial(rows_of_facts, request, table.everything, table.per_position)
    batches = in_batches([1] * len(facts), 1, 0)
    return Work("fact", facts, plan, batches, rows, COMPUTED, table)


def fact_item(prompts: Sequence[Item]) -> WorkItem:
    """Return the description of a fact as a piece of work: its first prompt's place and level, and its tokens."""
    first = prompts[0]
    texts = [one for prompt in prompts for one in prompt.completions]
    tokens = sum(len(one.context) + len(one.target) for one in texts)
    return item_of(f"{first.place}, level {first.level}" if first.level else first.place, tokens)


def rows_of_facts(
    request: NeuronRequest, everything: bool, per_position: bool, model: Model, facts: Sequence[Sequence[Item]]
) -> Block:
    """Return the rows of some facts, with the columns `COMPUTED`: for each prompt those of layers, then of neurons."""
    rows: list[Row] = []
    for one in (one for prompts in facts for one in found_of_fact(model, prompts, request)):
        rows += layer_rows(one.item, one.scores, one.kept)
        more = {"everything": everything, "per_position": per_position}
        rows += [(*row, None) for row in neuron_rows(one.item, one.scores, one.kept, one.shared, **more)]
    return block_of(COMPUTED, rows)


class NeuronTable:
    """The table of neurons: one row for each neuron, or only the counts by layer."""

    def __init__(self, counts: bool = False, everything: bool = False, per_position: bool = False) -> None:
        """Choose the rows: `counts` by layer, or neurons, with `everything` also those not found.

        With `per_position`, each predicted token has rows of its own.
        """
        self.counts, self.everything, self.per_position = counts, everything, per_position
        self.columns: tuple[str, ...] = (CountRow if counts else NeuronRow)._fields
        self.counted: list[CountRow] = []
        """The rows of counts: how many neurons each item has in each layer."""
        self.largest: dict[tuple[int, str], tuple[float, float]] = {}
        """The largest residual of any layer, and the largest effect, by item and level of edits."""

    def __call__(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the table's rows, and keep counts and residuals of the items."""
        for block in blocks:
            of_neurons = present(block["neuron"])
            self.count(take(block, ~of_neurons))
            chosen = take(block, ~of_neurons if self.counts else of_neurons)
            yield {name: chosen[name] for name in self.columns}

    def count(self, layers: Block) -> None:
        """Add rows of layers to the counts and residuals."""
        self.counted += [CountRow(*row) for row in rows_of({name: layers[name] for name in CountRow._fields})]
        for number, level, residual, effect in rows_of({name: layers[name] for name in ENDS}):
            before = self.largest.get((number, level), (0.0, 0.0))
            self.largest[number, level] = max(before[0], abs(residual)), max(before[1], abs(effect))

    def incomplete_line(self) -> str | None:
        """Return a message on the completions whose scores do not add up; None where all do."""
        incomplete = sum(residual > RESIDUAL_WARNED * effect for residual, effect in self.largest.values())
        if not incomplete:
            return None
        return (
            f"{incomplete} of {len(self.largest)} completions: scores of a layer miss their sum (column residual) by "
            f"more than {RESIDUAL_WARNED:.0%} of the largest effect; --quadrature gauss-legendre or more --steps "
            "help (both, 200, where a norm follows the MLP: Gemma 2 and 3, OLMo 2)"
        )


def wider_cuts(items: Iterable[Item]) -> str | None:
    """Return a message on the edits that were cut at a wider level than asked for; None where there are none."""
    edits = [one for one in items if one.level]
    wider = [one for one in edits if one.cut.level != one.level]
    if not wider:
        return None
    counts = Counter(f"{one.level} as {one.cut.level}" for one in wider)
    return (
        f"{len(wider)} of {len(edits)} edits are cut wider than asked, where nothing new would be left "
        f"({', '.join(f'{name}: {count}' for name, count in counts.items())}): see column cut"
    )
