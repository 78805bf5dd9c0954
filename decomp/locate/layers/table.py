"""Scoring layers on facts, for the command `decomp layers` and for notebooks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from decomp.core.model import Model
from decomp.corpus.batches import in_batches
from decomp.corpus.tokenizer import Tokenizer
from decomp.io.records import Fields
from decomp.locate.encoding import bos_of, check_length
from decomp.locate.facts import Fact, read_facts
from decomp.locate.layers.readings import readings_of
from decomp.locate.layers.request import LayerRequest
from decomp.locate.layers.rows import LayerRow, direct_rows, gradient_rows
from decomp.locate.layers.scoring import (
    LayerScores,
    bytes_per_token,
    check_memory,
    gradient_x_activation,
    summed_shares,
)
from decomp.locate.limits import MOST_TOGETHER
from decomp.tables.blocks import Block, block_of
from decomp.tables.work import Summary, Work, item_of

Numbered = tuple[int, Fact]
"""The number of a fact, counted from 0, and the fact."""
COLUMNS = LayerRow._fields


def open_facts(
    model: Model,
    tokenizer: Tokenizer,
    source: Path | Sequence[Mapping[str, Any]],
    bos: bool = True,
    fields: Fields = None,
) -> list[Fact]:
    """Read facts from a file, or from mappings, as tokens of a model.

    ValueError for a file that can't be read, a malformed item, and one with more tokens than the model has positions.
    """
    return read_facts(source, tokenizer, bos_of(model, tokenizer, bos), model.max_length(), fields)


def score_layers(
    model: Model,
    facts: Sequence[Fact],
    request: LayerRequest = LayerRequest(),  # noqa: B008
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[list[LayerRow]]:
    """Score every layer of a model on every fact: yield the rows of one fact and measure after another.

    `advance` is called with the number of facts done (by one measure). ValueError for a request that is not valid, for
    too little memory, and for scores that are not finite.

        facts = open_facts(model, tokenizer, Path("data/facts.jsonl"))
        rows = [row for each in score_layers(model, facts, LayerRequest(measures=("direct",))) for row in each]
    """
    check_facts(model, facts, request)
    for rows in rows_of_facts(model, list(enumerate(facts)), request):
        yield rows
        advance(1)


def check_facts(model: Model, facts: Sequence[Fact], request: LayerRequest) -> None:
    """Raise ValueError for a request that is not valid, and for facts that are too long or need too much memory."""
    request.check()
    for one in (reading for fact in facts for reading in readings_of(fact, request)):
        check_length(one.place, len(one.ids), model.max_length())
        check_memory(model, len(one.ids), request.memory)


def rows_of_facts(model: Model, facts: Sequence[Numbered], request: LayerRequest) -> Iterator[list[LayerRow]]:
    """Yield the rows of one fact and measure after another, all measures of a fact together."""
    scored: Iterator[LayerScores] = iter(())
    if "gradient_x_activation" in request.measures:
        scored = gradient_x_activation(model, [fact for _, fact in facts], request)
    for number, fact in facts:
        if "gradient_x_activation" in request.measures:
            yield list(gradient_rows(number, fact, next(scored), request))
        if "direct" in request.measures:
            yield list(direct_rows(number, fact, summed_shares(model, fact, request), request.function))


def layers_work(
    model: Model, facts: Sequence[Fact], request: LayerRequest, summary: Summary | None = None
) -> Work[Numbered]:
    """Return the computation of a table of layers from facts; with a `summary` of all rows where it is given.

    ValueError for a request that is not valid, and for facts that are too long or need too much memory.
    """
    check_facts(model, facts, request)
    lengths = [[len(reading.ids) for reading in readings_of(fact, request)] for fact in facts]
    plan = [item_of(fact.place, sum(own)) for fact, own in zip(facts, lengths, strict=True)]
    most = max(max(own) for own in lengths)
    together = max(1, min(MOST_TOGETHER, request.memory // (bytes_per_token(model, most) * most)))
    batches = in_batches([len(own) for own in lengths], None, together)
    return Work("fact", list(enumerate(facts)), plan, batches, partial(block_of_facts, request), COLUMNS, summary)


def block_of_facts(request: LayerRequest, model: Model, facts: Sequence[Numbered]) -> Block:
    """Return the rows of some facts as a block of columns."""
    return block_of(COLUMNS, chain.from_iterable(rows_of_facts(model, facts, request)))
