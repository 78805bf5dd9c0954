"""`decomp evaluate agreement`: do two measures rank the same sources first?"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decomp.cli import layout, options

if TYPE_CHECKING:
    from decomp.tables.blocks import Row


@layout.command(
    "agreement",
    """
    echo "The keys to the cabinet are on the table." > keys.txt
    decomp evaluate agreement keys.txt demo-opt --measure delta_lp --measure attention
    """,
)
@options.input_file
@options.model
@options.input_options
@options.evaluation_results
@layout.section("What is predicted", options.targets)
@options.sources_section
@options.plain_measures("delta_lp", "attention", "gradient_norm", "input_x_gradient")
@options.window_options
@layout.section("Intervals", options.seed)
@options.model_options
@options.run_options
@options.manners
def command(input_file: Path, **values: Any) -> None:
    """Measure how alike measures rank context tokens.

    The ranks are of the sources of INPUT_FILE's predictions (Oh & Schuler 2023, section 5). For every pair of measures
    the rank correlation over the sources of one predicted token, Spearman's and Kendall's (tau-b), averaged over
    predicted tokens; in brackets 95 % bootstrap intervals over these. A token with one source, or with equal scores for
    all, has no ranks and is left out. Needs scipy (the extra evaluate).
    """
    from decomp.cli.running import evaluate
    from decomp.cli.scoring import articles_of_input

    evaluate("agreement", articles_of_input(input_file, values), [input_file], result_lines, values)


def result_lines(rows: "Iterable[Row]") -> Iterator[str]:
    """Yield a line per pair of measures."""
    from decomp.cli.common import estimate, readable

    lines, rows = [["measures", "Spearman", "Kendall", "targets"]], list(rows)
    for spearman, kendall in zip(rows[::2], rows[1::2], strict=True):
        correlations = (estimate(*row[4:7]) for row in (spearman, kendall))
        lines.append([f"{spearman[0]} ~ {spearman[1]}", *correlations, str(spearman[3])])
    return readable(lines)
