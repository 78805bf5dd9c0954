"""`decomp evaluate alignment`: do the measures find the word that decides?"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decomp.cli import kinds, layout, options

if TYPE_CHECKING:
    from decomp.tables.blocks import Row


@layout.command(
    "alignment",
    """
    decomp evaluate alignment demo-evidence.csv demo-opt --limit 10 --measure delta_lp
    """,
)
@click.argument("items", nargs=-1, required=True, type=kinds.INPUT)
@options.model
@options.evaluation_results
@options.contrast_options
@layout.section("Intervals", options.seed)
@options.model_options
@options.run_options
@options.manners
def command(items: tuple[Path, ...], **values: Any) -> None:
    """Measure how well measures find known evidence.

    ITEMS are tables of contrast items as decomp contrast reads them, several at once (Yin & Neubig 2022). Among the
    tokens of each prompt, highest score first: the share of the scores that the evidence has (dot product), how many
    other tokens come before it (probes needed), and 1 / its rank (MRR); beside them, what scores in random order can
    expect. All tokens of the evidence count, wherever it stands; the beginning-of-sequence token doesn't. With
    --decomposition-length, all measures, and scores in random order, are compared over the tokens that are kept. In
    brackets 95 % bootstrap intervals over items.
    """
    from decomp.cli.running import evaluate
    from decomp.corpus.contrast_items import read_items

    for path in items:
        read_items(path, values["fields"])
    evaluate("alignment", items, items, result_lines, values)


def result_lines(rows: "Iterable[Row]") -> Iterator[str]:
    """Yield a block of lines per phenomenon, a line per measure."""
    from decomp.cli.common import estimate, readable
    from decomp.report.readable import one_line

    for phenomenon, group in groupby(rows, itemgetter(0)):
        (*_, items, mean, low, high, _), *others = group
        yield f"{one_line(phenomenon)}: {items} items, target preferred in {estimate(mean, low, high)}"
        lines = [["measure", "dot product", "probes needed", "MRR"]]
        for measure, metrics in groupby(others, itemgetter(1)):
            lines.append([measure, *(estimate(*row[4:7]) for row in metrics)])
        yield from (*readable(lines), "")
