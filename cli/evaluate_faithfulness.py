"""`decomp evaluate faithfulness`: does a prediction rest on the sources that a measure ranks first?"""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decomp.cli import options

if TYPE_CHECKING:
    import torch

    from decomp.corpus.windows import TokenisedWindow
    from decomp.measures.result import Scores
    from decomp.tables.columns import Row

METRICS = ("comprehensiveness", "sufficiency")
RANDOM = "<random>"
"""Rankings that know nothing."""
Key = tuple[str, str, str]
"""Measure, removal, metric."""


@click.command("faithfulness")
@options.input_file
@options.model
@options.evaluation_output
@options.table_format
@options.measure_options
@click.option("--targets", "count", type=click.IntRange(1), help="Predicted tokens, drawn at random.  [default: all]")
@click.option(
    "--removal",
    "removals",
    multiple=True,
    default=["mask", "unk"],
    show_default=True,
    help="What takes the place of removed sources: mask, pad, unk, or a token such as ' the'; several at once.",
)
@click.option(
    "--drop-in",
    type=click.Choice(["log2_prob", "prob"]),
    default="log2_prob",
    show_default=True,
    help="Of the predicted token: what is lost with the sources.",
)
@click.option("--draws", type=click.IntRange(2), default=5, show_default=True, help="Random rankings of each token.")
@options.seed
@options.model_options
@options.window_options
@options.overwrite
@options.quiet
def command(
    input_file: Path,
    model: str,
    output: Path | None,
    format_name: str | None,
    count: int | None,
    removals: tuple[str, ...],
    drop_in: str,
    draws: int,
    seed: int,
    stride: int | None,
    bos: bool,
    batch_size: int | None,
    overwrite: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """What predictions of INPUT_FILE lose without the sources that a measure ranks first (DeYoung et al. 2020).

    Comprehensiveness: the loss without 1, 5, 10, 20 and 50 % of the sources, the highest scores first; higher is
    better. Sufficiency: the loss with nothing but these; lower is better. AOPC is the mean of the five. In brackets
    95 % bootstrap intervals over predicted tokens; for random rankings, where 95 % of the draws are.
    """
    import torch

    from decomp.cli.common import made_now, open_model, open_windows, progress, table
    from decomp.corpus.articles import read_articles
    from decomp.evaluation.curves import perturbation_curves
    from decomp.evaluation.intervals import COLUMNS
    from decomp.measures.functions import find_function
    from decomp.measures.request import token_id
    from decomp.measures.windows import measure_windows
    from decomp.tables.files import check_table

    articles = read_articles(input_file)
    measures, request = options.request_of(asked)
    function = find_function(drop_in)
    check_table(output, format_name, inputs=(input_file, model), overwrite=overwrite)
    decomposed, tokenizer = open_model(model, asked["dtype"], asked["device"], asked["revision"])
    request = request.with_token_ids(tokenizer)
    replacements = {name: token_id(name, tokenizer, ("mask",)) for name in removals}
    windows = open_windows(articles, decomposed, tokenizer, stride, bos)
    chosen = choose_targets(windows, request.decomposition_length, count, seed)

    curves: dict[Key, list[torch.Tensor]] = defaultdict(list)
    generator = torch.Generator().manual_seed(seed)
    each_scored = measure_windows(decomposed, [window for window, _ in chosen], measures, request, batch_size)
    with progress(sum(len(targets) for _, targets in chosen), quiet) as bar:
        for (window, scores), (_, targets) in zip(each_scored, chosen, strict=True):
            ids = window.ids.to(decomposed.device)
            for target in targets:
                ranked = rankings(scores, target, draws, generator)
                for removal, replacement in replacements.items():
                    lost = perturbation_curves(
                        decomposed, ids[: target + 1], ids[target + 1], ranked, replacement, function, request.memory
                    )
                    for (name, metric), curve in lost.items():
                        curves[name, removal, metric].append(curve.double().cpu())
                bar.update()
    rows = list(summary({key: torch.stack(each) for key, each in curves.items()}, draws, seed))
    click.echo("\n".join(shown(rows, removals, drop_in)))
    if output is not None:
        with table(
            output,
            format_name,
            ("measure", "removal", "metric", "fraction", "targets", *COLUMNS),
            made_now(decomposed.about()),
        ) as write:
            write(rows)


def choose_targets(
    windows: "Sequence[TokenisedWindow]", decomposition_length: int | None, count: int | None, seed: int
) -> "list[tuple[TokenisedWindow, list[int]]]":
    """Windows cut to what their targets need, and these: all with sources to rank, or `count` of them at random.

    ValueError if there are none.
    """
    every = [
        (number, target)
        for number, window in enumerate(windows)
        for target in window.window.targets
        if target > 0 and decomposition_length != 1
    ]
    if not every:
        raise ValueError("nothing to rank: no predicted token has two sources or more")
    drawn = every if count is None else sorted(random.Random(seed).sample(every, min(count, len(every))))
    by_window = {number: [target for _, target in group] for number, group in groupby(drawn, itemgetter(0))}
    return [(only_targets(windows[number], targets), targets) for number, targets in by_window.items()]


def only_targets(tokenised: "TokenisedWindow", targets: Sequence[int]) -> "TokenisedWindow":
    """As much of a window as its targets need."""
    window = tokenised.window
    predicted = window.start - window.has_bos + 1
    return tokenised.cut(replace(window, first_scored=predicted + targets[0], stop=predicted + targets[-1] + 1))


def rankings(
    scores: "Sequence[Scores]", target: int, draws: int, generator: "torch.Generator"
) -> "dict[str, torch.Tensor]":
    """Of the sources that are kept for a target: each measure's, and random ones."""
    import torch

    from decomp.core.pairs import sources_of
    from decomp.evaluation.curves import rank_sources

    kept = sources_of(target, scores[0].decomposition_length)
    ranked = {s.measure: rank_sources(s.scores[target, kept.start : kept.stop]) for s in scores}
    device = scores[0].scores.device
    return ranked | {drawn(draw): torch.randperm(len(kept), generator=generator).to(device) for draw in range(draws)}


def drawn(draw: int) -> str:
    return f"{RANDOM} {draw}"


def summary(curves: "Mapping[Key, torch.Tensor]", draws: int, seed: int) -> "Iterator[Row]":
    """Each measure's curves, and at the end those of random rankings with their spread over draws."""
    import torch

    from decomp.evaluation.curves import by_bin
    from decomp.evaluation.intervals import estimates

    for key, curve in curves.items():
        if not key[0].startswith(RANDOM):
            yield from estimates({(*key, name): values.tolist() for name, values in by_bin(curve).items()}, seed)
    for name, removal, metric in curves:
        if name == drawn(0):
            every = torch.stack([curves[drawn(draw), removal, metric] for draw in range(draws)])
            for fraction, values in by_bin(every.mean(1)).items():
                low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
                yield (RANDOM, removal, metric, fraction, every.shape[1], values.mean().item(), low, high, seed)


def shown(rows: "Sequence[Row]", removals: Sequence[str], drop_in: str) -> "Iterator[str]":
    """The AOPC of each measure on a line."""
    from decomp.cli.common import estimate, readable

    found = {row[:3]: row[4:8] for row in rows if row[3] == "aopc"}
    (targets, *_) = next(iter(found.values()))
    yield f"AOPC ({'bits' if drop_in == 'log2_prob' else 'probability'}) of {targets} predicted tokens"
    lines = [["measure", *(f"{metric} ({removal})" for removal in removals for metric in METRICS)]]
    for name in dict.fromkeys(name for name, *_ in found):
        lines.append(
            [name, *(estimate(*found[name, removal, metric][1:]) for removal in removals for metric in METRICS)]
        )
    yield from readable(lines)
