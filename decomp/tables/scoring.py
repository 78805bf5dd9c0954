"""From windows to the rows of the long table: measures, and the columns that stand in front of their scores."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from decomp.corpus.windows import TokenisedWindow
from decomp.measures import Measure, Request
from decomp.measures.windows import measure_windows
from decomp.tables.columns import FORMATS, Row
from decomp.tables.front import Front


@dataclass(frozen=True)
class Scorer:
    """Measures, what they are asked with, and the columns of their rows."""

    measures: Sequence[Measure]
    request: Request
    front: Front

    def rows_by_window(
        self, model: Any, windows: Sequence[TokenisedWindow], batch_size: int | None = None
    ) -> Iterator[Iterable[Row]]:
        """Yield the rows of one window after the other, computed when they are asked for."""
        for window, results in measure_windows(
            model, windows, self.measures, self.request, batch_size, self.front.unit
        ):
            yield self.front.rows(model, window, results)

    def header(self, format_name: str) -> str:
        """Return what a table of this format begins with."""
        file = io.StringIO(newline="")
        FORMATS[format_name](file, self.front.columns)
        return file.getvalue()

    def part(self, model: Any, format_name: str, batch: Sequence[TokenisedWindow]) -> bytes:
        """Return the piece of the table that belongs to these windows, without the header."""
        file = io.StringIO(newline="")
        rows = chain.from_iterable(self.rows_by_window(model, batch, len(batch)))
        FORMATS[format_name](file, self.front.columns)(rows)
        return file.getvalue()[len(self.header(format_name)) :].encode()
