"""`decomp evaluate faithfulness`: does a prediction rest on the sources that a measure ranks first?"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decomp.cli import layout, options

if TYPE_CHECKING:
    from decomp.tables.blocks import Row


@layout.command(
    "faithfulness",
    """
    echo "The keys to the cabinet are on the table." > keys.txt
    decomp evaluate faithfulness keys.txt demo-opt --measure delta_lp --measure attention --targets 5
    """,
)
@options.input_file
@options.model
@options.input_options
@options.evaluation_results
@layout.section(
    "What is taken away",
    options.whole_number("--targets", "Number of predicted tokens, drawn at random.  [default: all]", name="count"),
    options.option(
        "--removal",
        "removals",
        multiple=True,
        default=["mask", "unk"],
        help="What takes the place of removed sources: mask, pad, unk, or a token such as ' the'; several at once.",
    ),
    options.choice(
        "--drop-in", ["log2_prob", "prob"], "log2_prob", "Quantity of the predicted token whose loss is measured."
    ),
    options.whole_number("--draws", "Number of random rankings of each token's sources.", 5, least=2),
    options.seed,
)
@options.sources_section
@options.measure_options
@options.model_options
@options.window_options
@options.run_options
@options.manners
def command(input_file: Path, **values: Any) -> None:
    """Measure what predictions lose without their best sources.

    The best sources of a prediction of INPUT_FILE are those that a measure ranks first (DeYoung et al. 2020).
    Comprehensiveness: the loss without 1, 5, 10, 20 and 50 % of the sources, the highest scores first; higher is
    better. Sufficiency: the loss with nothing but these; lower is better. AOPC is the mean of the five. In brackets 95
    % bootstrap intervals over predicted tokens; for random rankings, where 95 % of the draws are.
    """
    from decomp.cli.running import evaluate
    from decomp.cli.scoring import articles_of_input

    found = partial(result_lines, drop_in=values["drop_in"])
    evaluate("faithfulness", articles_of_input(input_file, values), [input_file], found, values)


def result_lines(rows: "Iterable[Row]", drop_in: str) -> Iterator[str]:
    """Yield a line per measure: the AOPC of each removal and metric."""
    from decomp.cli.common import estimate, readable

    found = {row[:3]: row[4:8] for row in rows if row[3] == "aopc"}
    (targets, *_) = next(iter(found.values()))
    yield f"AOPC ({'bits' if drop_in == 'log2_prob' else 'probability'}) of {targets} predicted tokens"
    columns = list(dict.fromkeys((removal, metric) for _, removal, metric in found))
    lines = [["measure", *(f"{metric} ({removal})" for removal, metric in columns)]]
    for name in dict.fromkeys(name for name, *_ in found):
        lines.append([name, *(estimate(*found[(name, *column)][1:]) for column in columns)])
    yield from readable(lines)
