"""Windows as rows of the long table: the scores of measures, and the columns in front of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from decomp.core.model import Model
from decomp.corpus.windows import TokenisedWindow
from decomp.measures import Measure, Request
from decomp.measures.windows import measure_windows
from decomp.tables.blocks import Block, concatenate
from decomp.tables.leading_columns import LeadingColumns
from decomp.tables.reduction import Reduction


@dataclass(frozen=True)
class Scorer:
    """The measures and settings by which windows are scored, the columns in front, and which rows are kept."""

    measures: Sequence[Measure]
    request: Request
    leading: LeadingColumns
    reduction: Reduction = field(default_factory=Reduction)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the table."""
        return self.reduction.columns(self.leading.columns)

    def blocks_by_window(
        self, model: Model, windows: Sequence[TokenisedWindow], batch_size: int | None = None
    ) -> Iterator[Block]:
        """Yield the rows of each window, computed when they are asked for."""
        for window, results in measure_windows(
            model, windows, self.measures, self.request, batch_size, self.leading.unit, self.leading.sources
        ):
            yield concatenate([self.reduction(block) for block in self.leading.blocks(model, window, results)])

    def part(self, model: Model, batch: Sequence[TokenisedWindow]) -> Block:
        """Return the rows of these windows."""
        return concatenate(list(self.blocks_by_window(model, batch, len(batch))))
