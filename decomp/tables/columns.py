"""The long table that every measure writes: one row per predicted token, source and measure."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

import torch
from torch import Tensor

from decomp.corpus.cutting import Window
from decomp.measures.result import Scores

COLUMNS = (
    "article",
    "window",
    "position",
    "token",
    "source_position",
    "source_token",
    "distance",
    "log2_prob",
    "measure",
    "score",
)
Row = tuple[Any, ...]
Writer = Callable[[Iterable[Row]], None]


def significant(values: Tensor) -> list[float]:
    """The shortest decimals that come back as the same numbers."""
    exact = values if values.dtype == torch.float64 else values.float()
    return [float(digits) for digits in exact.cpu().numpy().astype(str)]


def rows(
    result: Scores,
    window: Window,
    tokens: Sequence[str],
    front: Sequence[Row] = (),
    source_front: Sequence[Row] = (),
) -> Iterator[Row]:
    """The table rows of one window, in order of predicted token, then source.

    `front` and `source_front` are what stands before the columns, per predicted token and per source.
    """
    positions = [window.position(index) for index in range(len(tokens))]
    front = front or [()] * len(tokens)
    source_front = source_front or [()] * len(tokens)
    nowhere = (None,) * len(source_front[0])
    for target in result.targets:
        first = max(0, target - result.decomposition_length + 1)
        key = (window.article, window.number, positions[target + 1], tokens[target + 1])
        own = front[target + 1]
        (log2_prob,) = significant(result.log2_prob[target : target + 1])
        for k, score in enumerate(significant(result.scores[target, first : target + 1]), first):
            distance = target + 1 - k
            yield (
                *own, *source_front[k], *key, positions[k], tokens[k], distance, log2_prob, result.measure, score
            )  # fmt: skip
        for name, values in result.extra.items():
            (score,) = significant(values[target : target + 1])
            yield (*own, *nowhere, *key, None, name, None, log2_prob, result.measure, score)


@dataclass(frozen=True)
class LineFeeds:
    """Ends rows with a line feed, while `csv` takes them to end with both characters and so quotes either."""

    file: TextIO

    def write(self, row: str) -> None:
        self.file.write(row[:-2] + "\n")


def write_delimited(file: TextIO, delimiter: str, columns: Sequence[str]) -> Writer:
    writer = csv.writer(LineFeeds(file), delimiter=delimiter)
    writer.writerow(columns)
    return writer.writerows


def write_jsonl(file: TextIO, columns: Sequence[str] = COLUMNS) -> Writer:
    def write(table: Iterable[Row]) -> None:
        file.writelines(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in table)

    return write


class Format(Protocol):
    """Opened on a file (the header is written at once), called with rows as they come."""

    def __call__(self, file: TextIO, columns: Sequence[str] = COLUMNS) -> Writer: ...


FORMATS: dict[str, Format] = {
    "tsv": lambda file, columns=COLUMNS: write_delimited(file, "\t", columns),
    "csv": lambda file, columns=COLUMNS: write_delimited(file, ",", columns),
    "jsonl": write_jsonl,
}
"""By name. A command that adds to the key names its columns in front: `(*more, *COLUMNS)`."""
