"""Items in, their neurons out: what `decomp neurons find` and a notebook call."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from decomp.core.model import Model
from decomp.locate.neurons.items import Item
from decomp.locate.neurons.rows import CountRow, NeuronRow, count_rows, found, neuron_rows, shares
from decomp.locate.neurons.scoring import RESIDUAL_WARNED, NeuronRequest, NeuronScores, score_completions


@dataclass(frozen=True, eq=False)
class Found:
    """An item's neurons: their scores, those found, and how many of the fact's prompts found each."""

    item: Item
    scores: NeuronScores
    kept: Bool[Tensor, "L F"]
    shared: Float[Tensor, "L F"]


def find_neurons(
    model: Model,
    items: Sequence[Item],
    request: NeuronRequest = NeuronRequest(),  # noqa: B008
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[Found]:
    """Find the neurons that completions rest on, by integrated gradients (Dai et al. 2022): yield item after item.

    Items of one fact come one after the other. `advance` is called with the number of items done. ValueError as in
    `NeuronRequest.check`, for too little memory, and for scores that are not finite.

        items = open_items(model, tokenizer, Path("data/facts.jsonl"))
        for one in find_neurons(model, items, NeuronRequest(threshold=0.5)):
            print(one.item.fact, one.kept.nonzero())
    """
    request.check()
    facts: dict[tuple[str, str], list[Item]] = {}
    for one in items:
        facts.setdefault((one.fact, one.level), []).append(one)
    for prompts in facts.values():
        results = []
        for one in prompts:
            results.append(score_completions(model, one.completions, request, one.place))
            advance(1)
        masks = [found(result.scores.sum(1), request.threshold) for result in results]
        shared = shares(masks)
        for one, result, mask in zip(prompts, results, masks, strict=True):
            yield Found(one, result, mask & (shared >= request.share), shared)


class NeuronTable:
    """What becomes of items' neurons in a table: rows of neurons, or only their counts by layer."""

    def __init__(self, counts: bool = False, everything: bool = False, per_position: bool = False) -> None:
        """Take whether rows are `counts` by layer, else of `everything` (found or not), each predicted token apart."""
        self.counts, self.everything, self.per_position = counts, everything, per_position
        self.columns = (CountRow if counts else NeuronRow)._fields
        self.counted: list[CountRow] = []
        """How many neurons each item has in each layer."""
        self.items = self.incomplete = 0
        """Items, and those whose scores do not add up."""

    def of(self, one: Found) -> Iterable[NeuronRow | CountRow]:
        """Return the rows of one item, and count it."""
        counted = count_rows(one.item, one.kept)
        self.counted += counted
        self.items += 1
        self.incomplete += one.scores.incomplete
        if self.counts:
            return counted
        more = {"everything": self.everything, "per_position": self.per_position}
        return neuron_rows(one.item, one.scores, one.kept, one.shared, **more)

    def incomplete_line(self) -> str | None:
        """Return a line on the completions whose scores do not add up, None where all do."""
        if not self.incomplete:
            return None
        return (
            f"{self.incomplete} of {self.items} completions: scores of a layer miss their sum (column residual) by "
            f"more than {RESIDUAL_WARNED:.0%} of the largest effect; --quadrature gauss-legendre or more --steps "
            "help (both, 200, where a norm follows the MLP: Gemma 2 and 3, OLMo 2)"
        )


def wider_cuts(items: Iterable[Item]) -> str | None:
    """Return a line on the edits that were cut wider than asked for, None where there are none."""
    edits = [one for one in items if one.level]
    wider = [one for one in edits if one.cut.level != one.level]
    if not wider:
        return None
    counts = Counter(f"{one.level} as {one.cut.level}" for one in wider)
    return (
        f"{len(wider)} of {len(edits)} edits are cut wider than asked, where nothing new would be left "
        f"({', '.join(f'{name}: {count}' for name, count in counts.items())}): see column cut"
    )
