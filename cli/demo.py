"""`decomp demo`: the main job on the shipped corpus with a shipped model."""

from pathlib import Path

import click

from decomp.cli import kinds, layout, options
from decomp.cli.decompose import command as decompose
from decomp.cli.deltalp import command as deltalp
from decomp.models.families import DATA, DEMO_MODELS

LENGTH = 50
"""The number of most recent sources that are kept."""


@layout.command(
    "demo",
    """
    decomp demo
    decomp demo demo-gpt2 --output-dir gpt2
    """,
)
@click.argument("model", type=kinds.KnownName("demo model", lambda: list(DEMO_MODELS)), default="demo-opt")
@click.option("--output-dir", type=click.Path(path_type=Path), default=Path("output"), show_default=True)
@options.overwrite
@click.pass_context
def command(ctx: click.Context, model: str, output_dir: Path, overwrite: bool) -> None:
    """Decompose the demo corpus, compute ΔLP, and show an excerpt.

    Does what `decomp decompose` and `decomp deltalp` do, with a demo model (demo-opt or demo-gpt2), offline.
    """
    from decomp.report.opening import open_shown

    corpus = DATA / "demo.sentitems"
    table = output_dir / f"{corpus.stem}_{model}.tsv"
    run = {"model": model, "output_dir": output_dir, "overwrite": overwrite}
    ctx.invoke(decompose, input_file=corpus, decomposition_length=LENGTH, **run)
    ctx.invoke(deltalp, identifier=f"{corpus.stem}_{model}", output=table, format_name="tsv", **run)
    open_shown(table).show()
    click.echo(
        f"\nΔLP of every context token: {table}\nDecompositions: {output_dir}/{corpus.stem}_{model}_*.safetensors"
    )
