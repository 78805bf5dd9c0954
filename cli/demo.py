"""`decomp demo`: the main job on the shipped corpus with a shipped model."""

import csv
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import click

from decomp.cli import options
from decomp.cli.decompose import command as decompose
from decomp.cli.deltalp import command as deltalp

LENGTH = 50
"""Most recent sources kept."""
DISTANT = 10
"""Tokens back from which on a source counts as distant."""


@click.command("demo")
@click.argument("model", default="demo-opt")
@click.option("--output-dir", type=click.Path(path_type=Path), default=Path("output"), show_default=True)
@options.overwrite
@click.pass_context
def command(ctx: click.Context, model: str, output_dir: Path, overwrite: bool) -> None:
    """Decompose the demo corpus, compute ΔLP, and show an excerpt.

    Does what `decomp decompose` and `decomp deltalp` do, with a demo model (demo-opt or demo-gpt2), offline.
    """
    from decomp.models.families import DATA, DEMO_MODELS

    if model not in DEMO_MODELS:
        raise ValueError(f"{model!r} is no demo model: choose one of {', '.join(DEMO_MODELS)}")
    corpus = DATA / "demo.sentitems"
    table = output_dir / f"{corpus.stem}_{model}.tsv"
    run = {"model": model, "output_dir": output_dir, "overwrite": overwrite}
    ctx.invoke(decompose, input_file=corpus, decomposition_length=LENGTH, **run)
    ctx.invoke(deltalp, identifier=f"{corpus.stem}_{model}", output=table, format_name="tsv", **run)
    with table.open(encoding="utf-8", newline="") as file:
        click.echo("\n".join(excerpt(csv.DictReader(file, delimiter="\t"))))
    click.echo(
        f"\nΔLP of every context token: {table}\nDecompositions: {output_dir}/{corpus.stem}_{model}_*.safetensors"
    )


def excerpt(rows: Iterable[dict[str, str]], count: int = 12) -> list[str]:
    """Return lines that show the predictions which rest most on a distant token, with their three strongest sources.

    They stand in order of reading.
    """

    def key(row: dict[str, str]) -> tuple[int, int]:
        return int(row["article"]), int(row["position"])

    def score(row: dict[str, str]) -> float:
        return float(row["score"])

    def reach(sources: list[dict[str, str]]) -> float:
        return max((score(row) for row in sources if int(row["distance"]) >= DISTANT), default=0.0)

    predictions = [sorted(group, key=score, reverse=True) for _, group in groupby(rows, key)]
    chosen = sorted(predictions, key=reach, reverse=True)[:count]
    lines = ["article  position  token         log2 P   rests on (ΔLP in bits, how many tokens before)"]
    for sources in sorted(chosen, key=lambda sources: key(sources[0])):
        first = sources[0]
        strongest = "   ".join(
            f"{shown(row['source_token'])} {score(row):+.2f} ({row['distance']})" for row in sources[:3]
        )
        lines.append(
            f"{first['article']:>7}  {first['position']:>8}  {shown(first['token']):<12} "
            f"{float(first['log2_prob']):>7.2f}   {strongest}"
        )
    return lines


def shown(token: str) -> str:
    """Return a byte-level token for the eye: its leading space as `_`."""
    return token.replace("Ġ", "_")
