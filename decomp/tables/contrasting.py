"""From contrast items to the rows of the long table: measures of why the target and not the foil."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from decomp.measures import Measure, Request
from decomp.measures.contrast import COLUMNS as ITEM_COLUMNS
from decomp.measures.contrast import Contrast, MultiToken, joined, log2_odds, scored
from decomp.tables.columns import COLUMNS, Row, rows, significant

CONTRAST_COLUMNS = (*ITEM_COLUMNS, *COLUMNS)


class ItemRows(NamedTuple):
    """One item, scored."""

    log2_odds: float
    """log2 P(target) − log2 P(foil), in bits."""
    rows: list[Row]


@dataclass(frozen=True)
class Contraster:
    """Measures, each with what it is asked with, and how target and foil of several tokens are scored."""

    requests: Sequence[tuple[Measure, Request]]
    multi_token: MultiToken

    def rows_by_item(
        self, model: Any, tokenizer: Any, contrasts: Sequence[Contrast], batch_size: int
    ) -> Iterator[ItemRows]:
        """Yield the rows of one item after the other, `batch_size` items computed together."""
        for contrast, results in scored(model, contrasts, self.requests, batch_size):
            (odds,) = significant(log2_odds(model, contrast)[None])
            item, foil = contrast.item.item, joined(contrast.foil, tokenizer)
            front = (item.name, item.phenomenon, foil, odds, odds > 0, self.multi_token)
            window, tokens = contrast.window(), contrast.tokens(tokenizer)
            yield ItemRows(odds, [(*front, *row) for result in results for row in rows(result, window, tokens)])
