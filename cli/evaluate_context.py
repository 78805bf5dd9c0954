"""`decomp evaluate context`: do answers rest on the segments that measures rank first?"""

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
    "context",
    """
    decomp evaluate context demo-vases.jsonl demo-opt --limit 1 --measure delta_lp
    """,
)
@click.argument("items", type=kinds.INPUT)
@options.model
@options.evaluation_results
@options.context_items
@options.context_measures("delta_lp", "first_order", "input_x_gradient", "attention")
@layout.section("Intervals", options.seed)
@options.model_options
@options.run_options
@options.manners
def command(items: Path, **values: Any) -> None:
    """Measure how well measures rank segments of contexts.

    ITEMS are those of decomp context. Each segment is taken out of the context, in two ways: the text without it
    (removed), and the whole text with its keys hidden (masked). Per measure the rank correlation of its scores with
    what the answer's log2 probability loses, the bits that it loses without the first, and the first three, of the
    measure's ranking together (Cohen-Wang et al. 2024), and 1 / rank of the segment that is known to decide, where
    items name it ("evidence"). Beside them the ranking that leaving segments out gives itself, and a random one. In
    brackets 95 % bootstrap intervals over items. Needs scipy (the extra evaluate).
    """
    from decomp.cli.running import evaluate
    from decomp.corpus.context_items import read_context_items

    read = read_context_items(items)[: values.pop("limit")]
    evaluate("context_evaluation", read, [items], result_lines, values)


def result_lines(rows: "Iterable[Row]") -> Iterator[str]:
    """Yield a block of lines per removal, a line per measure."""
    from decomp.cli.common import estimate, readable

    for removal, group in groupby(rows, itemgetter(0)):
        found = {(measure, metric): estimate(*row) for _, measure, metric, _, *row, _ in group}
        metrics = list(dict.fromkeys(metric for _, metric in found))
        lines = [[f"without a segment: {removal}", *metrics]]
        for measure in dict.fromkeys(measure for measure, _ in found):
            lines.append([measure, *(found.get((measure, metric), "") for metric in metrics)])
        yield from (*readable(lines), "")
