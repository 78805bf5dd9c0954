"""`decomp evaluate agreement`: do two measures rank the same sources first?"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decomp.cli import options

if TYPE_CHECKING:
    from decomp.evaluation.agreement import Agreement
    from decomp.measures.result import Scores
    from decomp.tables.columns import Row


@click.command("agreement")
@options.input_file
@options.model
@options.evaluation_output
@options.table_format
@options.measures("delta_lp", "attention", "gradient_norm", "input_x_gradient")
@options.target
@options.function_options
@options.window_options
@options.seed
@options.model_options
@options.overwrite
@options.quiet
def command(
    input_file: Path,
    model: str,
    output: Path | None,
    format_name: str | None,
    target: Any,
    stride: int | None,
    bos: bool,
    batch_size: int | None,
    seed: int,
    overwrite: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """How alike measures rank the context tokens of INPUT_FILE's predictions (Oh & Schuler 2023, section 5).

    For every pair of measures the rank correlation over the sources of one predicted token, Spearman's and
    Kendall's (tau-b), averaged over predicted tokens; in brackets 95 % bootstrap intervals over these. A token
    with one source, or with equal scores for all, has no ranks and is left out. Needs scipy (the extra evaluate).
    """
    from decomp.cli.common import made_now, open_model, open_windows, progress, table
    from decomp.corpus.articles import read_articles
    from decomp.corpus.windows import only_target
    from decomp.evaluation.intervals import COLUMNS, estimates
    from decomp.measures.windows import measure_windows
    from decomp.tables.files import check_table

    articles = read_articles(input_file)
    measures, request = options.request_of(asked)
    check_table(output, format_name, inputs=(input_file, model), overwrite=overwrite)
    decomposed, tokenizer = open_model(model, asked["dtype"], asked["device"], asked["revision"])
    request = request.with_token_ids(tokenizer)
    windows = open_windows(articles, decomposed, tokenizer, stride, bos)
    if target is not None:
        windows = only_target(windows, target)

    found: dict[tuple[str, ...], list[float]] = {}
    with progress(sum(len(w.ids) for w in windows), quiet) as bar:
        for window, results in measure_windows(decomposed, windows, measures, request, batch_size):
            for pair, agreed in compared(results):
                for metric, value in agreed._asdict().items():
                    found.setdefault((*pair, metric), []).append(value)
            bar.update(len(window.ids))
    if not found:
        raise ValueError("nothing to compare: no predicted token has ranks, two sources or more with unequal scores")
    rows = list(estimates(found, seed))
    click.echo("\n".join(shown(rows)))
    if output is not None:
        with table(
            output,
            format_name,
            ("measure", "other_measure", "metric", "targets", *COLUMNS),
            made_now(decomposed.about()),
        ) as write:
            write(rows)


def compared(scores: "Sequence[Scores]") -> "Iterator[tuple[tuple[str, str], Agreement]]":
    """Each pair of measures of one window, and their agreement on each target that has ranks."""
    from decomp.evaluation.agreement import agreement

    if len(scores) < 2:
        raise ValueError(f"{scores[0].measure} alone has nothing to agree with: give --measure twice or more")
    for first, second in combinations(scores, 2):
        for target in first.targets:
            sources = slice(max(0, target - first.decomposition_length + 1), target + 1)
            agreed = agreement(*(s.scores[target, sources].double().cpu().numpy() for s in (first, second)))
            if agreed is not None:
                yield (first.measure, second.measure), agreed


def shown(rows: "Sequence[Row]") -> Iterator[str]:
    """A line per pair of measures."""
    from decomp.cli.common import estimate, readable

    lines = [["measures", "Spearman", "Kendall", "targets"]]
    for spearman, kendall in zip(rows[::2], rows[1::2], strict=True):
        correlations = (estimate(*row[4:7]) for row in (spearman, kendall))
        lines.append([f"{spearman[0]} ~ {spearman[1]}", *correlations, str(spearman[3])])
    return readable(lines)
