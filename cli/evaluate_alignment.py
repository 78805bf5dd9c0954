"""`decomp evaluate alignment`: do the measures find the word that decides?"""

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decomp.cli import options

if TYPE_CHECKING:
    from decomp.tables.columns import Row

MODEL, RANDOM = "<model>", "<random>"
"""What has metrics and is no measure: the model itself, and scores in random order."""
EVERY = "<all>"
"""Items of all phenomena together."""


@click.command("alignment")
@click.argument("items", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.model
@options.evaluation_output
@options.table_format
@options.contrast_options
@options.seed
@options.model_options
@options.overwrite
@options.quiet
def command(
    items: tuple[Path, ...],
    model: str,
    output: Path | None,
    format_name: str | None,
    multi_token: Any,
    limit: int | None,
    bos: bool,
    batch_size: int,
    seed: int,
    overwrite: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """How well measures single out the known evidence of contrast items (Yin & Neubig 2022).

    ITEMS are tables as decomp contrast reads them, several at once. Among the tokens of each prompt, highest score
    first: the share of the scores that the evidence has (dot product), how many other tokens come before it
    (probes needed), and 1 / its rank (MRR); beside them, what scores in random order can expect. All tokens of
    the evidence count, wherever it stands; the beginning-of-sequence token doesn't. With --decomposition-length, all
    measures, and scores in random order, are compared over the tokens that are kept. In brackets 95 % bootstrap
    intervals over items.
    """
    import numpy as np

    from decomp.cli.common import (
        contrastive_requests,
        made_now,
        open_contrasts,
        open_model,
        progress,
        say,
        table,
    )
    from decomp.corpus.contrast_items import read_items
    from decomp.evaluation.alignment import alignment, random_alignment
    from decomp.evaluation.intervals import COLUMNS, estimates
    from decomp.measures.contrast import log2_odds, prompt_scores, scored
    from decomp.tables.files import check_table

    read = list(chain.from_iterable(read_items(path)[:limit] for path in items))
    requests = contrastive_requests(asked, multi_token)
    check_table(output, format_name, inputs=(*items, model), overwrite=overwrite)
    decomposed, tokenizer = open_model(model, asked["dtype"], asked["device"], asked["revision"])
    requests = [(measure, request.with_token_ids(tokenizer)) for measure, request in requests]
    contrasts = open_contrasts(read, decomposed, tokenizer, multi_token, bos, quiet)
    length = asked["decomposition_length"]
    known = [c for c in contrasts if not set(c.item.evidence).isdisjoint(c.prompt_tokens(length))]
    sources = "the prompt" if length is None else f"the {length} most recent sources"
    if not known:
        raise ValueError(f"none of {len(read)} items has evidence that is a word of {sources}: alignment needs it")
    if len(known) < len(contrasts):
        say(f"{len(contrasts) - len(known)} of {len(read)} items left out: no evidence in {sources}", quiet)

    found: dict[tuple[str, ...], list[float]] = {}
    with progress(len(known), quiet, "item") as bar:
        for contrast, scores in scored(decomposed, known, requests, batch_size):
            item = contrast.item
            evidence = np.isin(contrast.prompt_tokens(length), item.evidence)
            values = {(MODEL, "prefers_target"): float(log2_odds(decomposed, contrast) > 0)}
            aligned = {s.measure: alignment(prompt_scores(contrast, s), evidence) for s in scores}
            for name, metrics in {**aligned, RANDOM: random_alignment(evidence)}.items():
                values |= {(name, metric): value for metric, value in metrics._asdict().items()}
            for phenomenon in (item.item.phenomenon, EVERY):
                for key, value in values.items():
                    found.setdefault((phenomenon, *key), []).append(value)
            bar.update()
    rows = list(estimates(in_order(found), seed))
    click.echo("\n".join(shown(rows)))
    if output is not None:
        with table(
            output, format_name, ("phenomenon", "measure", "metric", "items", *COLUMNS), made_now(decomposed.about())
        ) as write:
            write(rows)


def in_order(found: dict[tuple[str, ...], list[float]]) -> dict[tuple[str, ...], list[float]]:
    """Phenomenon by phenomenon, all together last; without that where there is one."""
    several = len({phenomenon for phenomenon, *_ in found}) > 2
    keys = sorted(found, key=lambda key: (key[0] == EVERY, key[0]))
    return {key: found[key] for key in keys if several or key[0] != EVERY}


def shown(rows: "Sequence[Row]") -> Iterator[str]:
    """A block of lines per phenomenon, a line per measure."""
    from decomp.cli.common import estimate, printable, readable

    for phenomenon, group in groupby(rows, itemgetter(0)):
        (*_, items, mean, low, high, _), *others = group
        yield f"{printable(phenomenon)}: {items} items, target preferred in {estimate(mean, low, high)}"
        lines = [["measure", "dot product", "probes needed", "MRR"]]
        for measure, metrics in groupby(others, itemgetter(1)):
            lines.append([measure, *(estimate(*row[4:7]) for row in metrics)])
        yield from (*readable(lines), "")
