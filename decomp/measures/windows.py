"""Computing measures on the windows of a corpus, in batches of windows."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, groupby
from operator import attrgetter
from typing import Any

from decomp.core.model import Model
from decomp.core.partition import Partition
from decomp.corpus.batches import in_batches
from decomp.corpus.sources import SourceLabels, Sources, source_labels
from decomp.corpus.windows import TokenisedWindow, Unit
from decomp.measures.registry import Measure
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores


def partition_of(window: TokenisedWindow, sources: Sources | None, unit: Unit = "token") -> Partition | None:
    """Return the source of each token of a window; None where sources are the same unit as what is predicted."""
    found = source_labels(window, sources, unit)
    return None if found is None else named_partition(found)


def named_partition(found: SourceLabels) -> Partition:
    """Return labelled tokens as a partition; a source without a name among named ones has an empty name."""
    partition = Partition.of(found.labels)
    if found.names is None:
        return partition
    numbers = [int(found.labels[first]) for first in partition.begins]
    return Partition(partition.labels, tuple(found.names.get(number, "") for number in numbers))


def text_of(window: TokenisedWindow, device: Any, unit: Unit = "token", sources: Sources | None = None) -> Text:
    """Return a window as the text that measures score: its tokens on a device, their words and sources."""
    words = window.word_of_tokens().to(device) if unit == "word" else None
    place = f"article {window.window.article}, window {window.window.number}"
    partition = partition_of(window, sources, unit)
    bos = window.window.has_bos
    return Text(window.ids.to(device), window.window.targets, words=words, sources=partition, has_bos=bos, place=place)


def check_predicted(windows: Sequence[TokenisedWindow], unit: Unit = "token", span: int = 1) -> None:
    """Raise ValueError where no window predicts any unit (token or word), or a span of `span` units."""
    units = [window.in_words() if unit == "word" else window for window in windows]
    counts = [len(each.window.targets) for each in units]
    if max(counts, default=0) == 0:
        raise ValueError("the text has no token to predict: give one with more words")
    if max(counts) < span:
        raise ValueError(f"no window predicts {span} {unit}s: take a --span of at most {max(counts)}")


def measure_windows(
    model: Model,
    windows: Sequence[TokenisedWindow],
    measures: Sequence[Measure],
    request: Request,
    batch_size: int | None = None,
    unit: Unit = "token",
    sources: Sources | None = None,
) -> Iterator[tuple[TokenisedWindow, list[Scores]]]:
    """Yield each window with the scores of all measures, in order.

    `batch_size` windows are computed together, by default as many as have the tokens of one full window. Windows that
    predict spans of different lengths are computed separately.
    """
    for span, alike in groupby(windows, attrgetter("span")):
        yield from measure_alike(model, list(alike), measures, replace(request, span=span), batch_size, unit, sources)


def measure_alike(
    model: Model,
    windows: Sequence[TokenisedWindow],
    measures: Sequence[Measure],
    request: Request,
    batch_size: int | None,
    unit: Unit,
    sources: Sources | None,
) -> Iterator[tuple[TokenisedWindow, list[Scores]]]:
    """Yield each window with the scores of all measures; all windows must predict spans of the request's length."""
    for numbers in in_batches([len(window.ids) for window in windows], batch_size, model.max_length()):
        batch = windows[numbers.start : numbers.stop]
        texts = [text_of(window, model.device, unit, sources) for window in batch]
        for window, *results in zip(batch, *(measure(model, texts, request) for measure in measures), strict=True):
            yield window, list(chain.from_iterable(results))
