"""Contrast items as rows of the long table: measures of why the target is preferred to the foil."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from decomp.core.model import Model
from decomp.corpus.tokenizer import Tokenizer
from decomp.measures import Measure, Request
from decomp.measures.contrast import COLUMNS as ITEM_COLUMNS
from decomp.measures.contrast import Contrast, joined, log2_odds, scored
from decomp.measures.contrast_request import MultiToken
from decomp.tables.blocks import Block, concatenate, constant, equal_to, numbers
from decomp.tables.columns import COLUMNS, SOURCE_LENGTH, Groups, scores_block, significant
from decomp.tables.reduction import Reduction

CONTRAST_COLUMNS = (*ITEM_COLUMNS, *COLUMNS)


class ItemBlock(NamedTuple):
    """The rows of one scored item."""

    log2_odds: float
    """log2 P(target) − log2 P(foil), in bits."""
    rows: Block


@dataclass(frozen=True)
class Contraster:
    """The measures and settings by which items are scored, and how targets and foils of several tokens are."""

    requests: Sequence[tuple[Measure, Request]]
    multi_token: MultiToken
    reduction: Reduction = field(default_factory=Reduction)
    has_groups: bool = False
    """Whether the sources are groups of the prompt's tokens."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the table."""
        return self.reduction.columns((*ITEM_COLUMNS, *([SOURCE_LENGTH] if self.has_groups else []), *COLUMNS))

    def rows_by_item(
        self, model: Model, tokenizer: Tokenizer, contrasts: Sequence[Contrast], batch_size: int
    ) -> Iterator[ItemBlock]:
        """Yield the rows of each item; `batch_size` items are computed together, as they are asked for."""
        for contrast, results in scored(model, contrasts, self.requests, batch_size):
            (odds,) = significant(log2_odds(model, contrast)[None])
            item, foil = contrast.item.item, joined(contrast.foil, tokenizer)
            window, tokens = contrast.window(), contrast.tokens(tokenizer)
            values = (item.name, item.phenomenon, foil, odds, odds > 0, self.multi_token)
            facts = {name: constant(value, len(tokens)) for name, value in zip(ITEM_COLUMNS, values, strict=True)}
            groups = groups_of(contrast, tokenizer) if self.has_groups else None
            blocks = [scores_block(result, window, tokens, facts, groups=groups) for result in results]
            yield ItemBlock(odds, concatenate([self.reduction(block) for block in blocks]))

    def part(self, tokenizer: Tokenizer, model: Model, batch: Sequence[Contrast]) -> Block:
        """Return the rows of these items."""
        own = [contrast.on(model.device) for contrast in batch]
        return concatenate([item.rows for item in self.rows_by_item(model, tokenizer, own, len(own))])


def groups_of(contrast: Contrast, tokenizer: Tokenizer) -> Groups:
    """Return the sources of an item's context as columns of the table."""
    partition = contrast.texts[0].partition
    texts, sizes = contrast.source_texts(tokenizer), partition.labels[: contrast.context].bincount().numpy()
    return Groups(np.array(partition.begins[: len(texts)]), texts, sizes)


def items_preferring_target(rows: Block) -> set[int]:
    """Return the numbers of the items in these rows whose target the model prefers."""
    return {*numbers(rows["article"])[equal_to(rows["prefers_target"], True)].tolist()}
