"""Which rule finds what predictions rest on: both on the same items and the same text, and their paired difference."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np

from decomp.corpus.articles import read_articles
from decomp.corpus.contrast_items import read_items
from decomp.evaluation import alignment, faithfulness
from decomp.jobs import open_contrasting, open_model, open_scoring, with_evidence
from decomp.measures.contrast import scored
from decomp.measures.functions import find_function
from decomp.measures.request import token_id
from decomp.models.base import DecomposedModel
from decomp.settings import contrast_settings, scoring_settings
from decomp.tables.intervals import bootstrap_interval, gathered

RULES = {"gate": ("frozen", "half"), "activation": ("tangent", "secant")}
Key = tuple[str, ...]
Values = dict[Key, dict[str, np.ndarray]]
"""One value per item or predicted token, by what is measured and then by rule."""
Pair = tuple[DecomposedModel, Any]
BATCH = 8


def alignments(pair: Pair, items: Sequence[Path], limit: int | None, kind: str) -> Values:
    """Return the reciprocal rank of the deciding word of every item, by phenomenon, measure and rule."""
    read = list(chain.from_iterable(read_items(path)[:limit] for path in items))
    found: Values = {}
    for rule in RULES[kind]:
        settings = contrast_settings("delta_lp", **{f"{kind}_rule": rule})
        opened = with_evidence(open_contrasting(read, settings, pair), None)
        each = scored(opened.model, opened.contrasts, opened.contraster.requests, BATCH)
        rows = gathered(alignment.alignments(opened.model, item, results, None) for item, results in each)
        for (phenomenon, measure, metric), values in alignment.by_phenomenon(rows).items():
            if metric in ("reciprocal_rank", "dot_product") and not measure.startswith("<"):
                found.setdefault((phenomenon, metric), {})[rule] = np.array(values)
    return found


def curves(pair: Pair, text: Path, count: int, positions: int, removals: Sequence[str], kind: str, seed: int) -> Values:
    """Return the area over the perturbation curves of predicted tokens, by removal, metric and rule."""
    pair[0].max_length = lambda: positions  # type: ignore[method-assign]
    articles = list(read_articles(text))
    found: Values = {}
    for rule in RULES[kind]:
        scoring = open_scoring(scoring_settings(articles, "delta_lp", **{f"{kind}_rule": rule}), pair)
        scorer = scoring.scorer
        chosen = faithfulness.choose_targets(scoring.windows, None, count, seed)
        replacements = {name: token_id(name, pair[1], ("mask",)) for name in removals}
        how = faithfulness.Perturbation(replacements, find_function("log2_prob"), 0, seed)
        each = faithfulness.curves_of_targets(scoring.model, chosen, scorer.measures, scorer.request, how)
        for (_, removal, metric), values in gathered(each).items():
            found.setdefault((f"{metric} ({removal})", "aopc"), {})[rule] = np.array([v.mean().item() for v in values])
    return found


def rows(values: Values, kind: str, seed: int) -> Iterator[str]:
    """Yield a Markdown table: per quantity the means of both rules, their difference, and its interval."""
    first, second = RULES[kind]
    yield f"| of | metric | number | `{first}` | `{second}` | difference |"
    yield "|---|---|---|---|---|---|"
    for (name, metric), each in values.items():
        difference = each[second] - each[first]
        low, high = bootstrap_interval(difference, seed)
        means = " | ".join(f"{each[rule].mean():.3f}" for rule in (first, second))
        interval = f"{difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        yield f"| {name} | {metric} | {len(difference)} | {means} | {interval} |"


@click.command()
@click.argument("model")
@click.option("--rule", "kind", type=click.Choice(list(RULES)), default="gate", show_default=True)
@click.option("--items", multiple=True, type=click.Path(path_type=Path), help="Contrast items with evidence.")
@click.option("--limit", type=int, help="Items of each file.")
@click.option("--text", type=click.Path(path_type=Path), help="A corpus for perturbation curves.")
@click.option("--targets", default=100, show_default=True, help="Predicted tokens of the text, drawn at random.")
@click.option("--positions", default=64, show_default=True, help="Tokens of a window of the text.")
@click.option("--removal", "removals", multiple=True, default=["mask"], show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(
    model: str, kind: str, items: Sequence[Path], limit: int | None, text: Path | None, seed: int, **of_text: Any
) -> None:
    """Compare ΔLP under both rules: deciding words of contrast items, perturbation curves of a text."""
    pair = open_model(model)
    values: Values = {}
    if items:
        values |= alignments(pair, items, limit, kind)
    if text:
        values |= curves(pair, text, of_text["targets"], of_text["positions"], of_text["removals"], kind, seed)
    for line in rows(values, kind, seed):
        click.echo(line)


if __name__ == "__main__":
    main()
