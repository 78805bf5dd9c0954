"""Facts in, rows of layers out: what `decomp layers` and a notebook call."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from decomp.core.model import Model
from decomp.locate.encoding import bos_of, check_length
from decomp.locate.facts import Fact, read_facts
from decomp.locate.layers.readings import LayerRequest, readings_of
from decomp.locate.layers.rows import LayerRow, direct_rows, gradient_rows
from decomp.locate.layers.scoring import check_memory, gradient_x_activation, summed_shares


def open_facts(
    model: Model, tokenizer: Any, source: Path | Sequence[Mapping[str, Any]], bos: bool = True
) -> list[Fact]:
    """Read the facts of a file, or items at hand, as this model's tokens. ValueError as in `read_facts`."""
    return read_facts(source, tokenizer, bos_of(model, tokenizer, bos), model.max_length())


def score_layers(
    model: Model,
    facts: Sequence[Fact],
    request: LayerRequest = LayerRequest(),  # noqa: B008
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[list[LayerRow]]:
    """Score every layer of a model on every fact: yield the rows of one measure and fact after the other.

    `advance` is called with the number of facts done. ValueError as in `LayerRequest.check`, for too little memory,
    and for scores that are not finite.

        facts = open_facts(model, tokenizer, Path("data/facts.jsonl"))
        rows = [row for each in score_layers(model, facts, LayerRequest(measures=("direct",))) for row in each]
    """
    request.check()
    for one in (reading for fact in facts for reading in readings_of(fact, request)):
        check_length(one.place, len(one.ids), model.max_length())
        check_memory(model, len(one.ids), request.memory)
    if "gradient_x_activation" in request.measures:
        for item, scores in enumerate(gradient_x_activation(model, facts, request)):
            yield list(gradient_rows(item, facts[item], scores, request))
            advance(1)
    if "direct" in request.measures:
        for item, fact in enumerate(facts):
            yield list(direct_rows(item, fact, summed_shares(model, fact, request), request.function))
            advance(1)
