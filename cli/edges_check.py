"""`decomp edges check`: how much of a behaviour the best edges carry."""

from dataclasses import astuple
from pathlib import Path
from typing import Any

import click

from decomp.cli import options
from decomp.cli.edges import behaviour_options


@click.command("check")
@click.argument("edges_file", metavar="EDGES", type=click.Path(path_type=Path))
@click.argument("prompts_file", metavar="PROMPTS", type=click.Path(path_type=Path))
@options.model
@options.output
@options.table_format
@click.option("--keep", "counts", type=int, multiple=True, help="Edges kept. Several.  [default: 1, 2, 5, 10, …]")
@click.option("--random", type=click.IntRange(0), default=3, show_default=True, help="Random rankings beside.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random rankings.")
@behaviour_options
@options.memory
@options.placement_options
@options.prompt_bos
@options.overwrite
@options.quiet
def command(
    edges_file: Path,
    prompts_file: Path,
    model: str,
    output: Path | None,
    format_name: str | None,
    counts: tuple[int, ...],
    random: int,
    seed: int,
    memory: str,
    device: str,
    dtype: str,
    revision: str | None,
    bos: bool,
    overwrite: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Keep the n best edges of EDGES, ablate all others: how much of the clean behaviour remains?

    EDGES is a table that `decomp edges` wrote; edges that it lacks count as 0. Writes one row per ranking and
    n: the loss L, and its share of the way from all edges ablated (0) to none (1).
    """
    from decomp.cli.common import open_model, progress, table
    from decomp.io.amounts import parse_bytes
    from decomp.locate.edges.behaviour import Setting
    from decomp.locate.edges.checking import COLUMNS, check_edges, default_counts, rankings
    from decomp.locate.edges.graph import graph_of
    from decomp.locate.edges.prompts import read_prompts
    from decomp.locate.edges.rows import read_edges
    from decomp.tables.files import check_table

    check_table(output, format_name, inputs=(edges_file, prompts_file, model), overwrite=overwrite)
    setting = Setting(**asked, memory=parse_bytes(memory))
    decomposed, tokenizer = open_model(model, dtype, device, revision)
    graph = graph_of(decomposed)
    orders = rankings(graph, read_edges(edges_file, graph), random, seed)
    prompts = read_prompts(prompts_file, tokenizer, decomposed.config, bos)
    kept = sorted(set(counts)) or default_counts(len(orders["score"]))
    with progress(len(orders) * len(kept) + 2, quiet, "pass") as bar:
        rows = check_edges(decomposed, graph, prompts, orders, kept, setting, advance=bar.update)
    with table(output, format_name, COLUMNS) as write:
        write(astuple(row) for row in rows)
