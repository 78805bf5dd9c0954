"""`decomp edges score`: a score for every edge."""

from pathlib import Path
from typing import Any

import click

from decomp.cli import options
from decomp.cli.edges import behaviour_options


@click.command("score")
@click.argument("prompts_file", metavar="PROMPTS", type=click.Path(path_type=Path))
@options.model
@options.output
@options.table_format
@click.option("--method", type=click.Choice(["mask_gradient", "eap_ig"]), default="mask_gradient", show_default=True)
@click.option(
    "--mask-value", type=float, help="Take gradients with every edge ablated this far; 0: edge attribution patching."
)
@click.option(
    "--integrated-gradient-samples",
    "samples",
    type=int,
    help="Average gradients over n + 1 mask values from 0 to 1; of eap_ig: over n interpolated embeddings.",
)
@behaviour_options
@click.option(
    "--subgraph", type=click.Path(path_type=Path), help="JSON to write: the top edges, and how they were made."
)
@click.option(
    "--plot",
    "picture",
    type=click.Path(path_type=Path),
    help="Picture of the top edges to write: .dot, or with Graphviz installed .png, .svg, .pdf.",
)
@click.option("--top", type=click.IntRange(1), default=50, show_default=True, help="Edges of --subgraph and --plot.")
@options.memory
@options.placement_options
@options.prompt_bos
@options.overwrite
@options.quiet
def command(
    prompts_file: Path,
    model: str,
    output: Path | None,
    format_name: str | None,
    subgraph: Path | None,
    picture: Path | None,
    top: int,
    memory: str,
    device: str,
    dtype: str,
    revision: str | None,
    bos: bool,
    overwrite: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Score every edge of MODEL's computation graph on the prompt pairs of PROMPTS.

    Exactly one of --mask-value and --integrated-gradient-samples is needed. A score is the derivative of the
    loss L with respect to the edge's mask (0: as it is, 1: ablated), averaged over prompts and samples: positive
    where ablating the edge harms the answer. Writes one row per edge.
    """
    from decomp.cli.common import open_model, progress, say, table
    from decomp.io.amounts import parse_bytes
    from decomp.locate.edges.prompts import read_prompts
    from decomp.locate.edges.rows import COLUMNS, edge_rows, summary
    from decomp.locate.edges.scoring import EdgeRequest, ranked, score_edges
    from decomp.report.circuits import check_picture, draw, write_subgraph
    from decomp.tables.files import check_table

    request = EdgeRequest(**asked, memory=parse_bytes(memory))
    request.check([])
    if picture is not None:
        check_picture(picture)
    check_table(output, format_name, subgraph, picture, inputs=(prompts_file, model), overwrite=overwrite)
    decomposed, tokenizer = open_model(model, dtype, device, revision)
    prompts = read_prompts(prompts_file, tokenizer, decomposed.config, bos)
    with progress(len(prompts), quiet, "prompt") as bar:
        result = score_edges(decomposed, prompts, request, bar.update)
    with table(output, format_name, COLUMNS) as write:
        write(edge_rows(result, result.graph.places()))
    strongest = ranked(result.graph, result.scores)[:top]
    if subgraph is not None:
        about = {**decomposed.about(), "prompts": len(prompts), **summary(result, request)}
        write_subgraph(subgraph, about, result, strongest)
    if picture is not None:
        draw(picture, result, strongest)
    for line in (f"{name}: {value}" for name, value in summary(result, request).items()):
        say(line, quiet)
