"""`decomp edges score`: a score for every edge."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from decomp.cli import layout, options
from decomp.cli.edges import behaviour_options, prompts_file
from decomp.locate.conventions import EDGES

if TYPE_CHECKING:
    from decomp.locate.edges.request import EdgeRequest


@layout.command(
    "score",
    """
    decomp edges score demo-pronouns.json demo-opt --mask-value 0 -o edges.tsv
    decomp edges score demo-pronouns.json demo-opt --integrated-gradient-samples 3 -o averaged.tsv
    """,
)
@prompts_file
@options.model
@layout.section(
    "Scores",
    options.convention(EDGES),
    options.choice(
        "--method",
        ["mask_gradient", "eap_ig", "eap_ig_activations", "both_ends"],
        "mask_gradient",
        help="Derivatives of masks; gradients at embeddings between corrupt and clean; at outputs between them, stage "
        "by stage; at the clean and the corrupt prompts.",
    ),
    click.option(
        "--mask-value",
        type=click.FloatRange(0, 1),
        help="Take gradients with every edge ablated this far; 0: edge attribution patching.",
    ),
    click.option(
        "--integrated-gradient-samples",
        "samples",
        type=int,
        help="Average gradients over n + 1 mask values from 0 to 1; of eap_ig: over n interpolated embeddings.",
    ),
    options.choice(
        "--quadrature",
        ["riemann", "left", "right", "midpoint", "trapezoid", "gauss-legendre"],
        None,
        help="Where the samples are: riemann k/n for k = 0 … n, left 0 … n − 1, right 1 … n, with eap_ig from the "
        "corrupt embedding (0) to the clean one.  [default: riemann, of eap_ig right]",
    ),
    options.choice(
        "--over-prompts",
        ["mean", "sum", "batch_means"],
        "mean",
        help="Scores are means over prompts, their sum, or the sum of the means in given batches.",
    ),
    options.choice("--over-samples", ["mean", "sum"], "mean", help="Scores are means over samples, or their sum."),
)
@behaviour_options
@options.locate_options(
    click.option("--subgraph", type=options.FILE, help="JSON to write: the top edges, and how they were made."),
    click.option(
        "--plot",
        "picture",
        type=options.FILE,
        help="Picture of the top edges to write: .dot, or with Graphviz installed .png, .svg, .pdf.",
    ),
    options.whole_number("--top", "Number of edges in --subgraph and --plot.", 50),
)
def command(**values: Any) -> None:
    """Score every edge of MODEL on the prompt pairs of PROMPTS.

    Exactly one of --mask-value and --integrated-gradient-samples is needed. A score is the derivative of the
    loss L with respect to the edge's mask (0: as it is, 1: ablated), averaged over prompts and samples: positive
    where ablating the edge harms the answer. Writes one row per edge.
    """
    from decomp.cli.locating import check_outputs, request_of
    from decomp.locate.edges.request import EdgeRequest
    from decomp.locate.forms import check_pairs
    from decomp.report.circuits import check_picture

    check_outputs(values, check_picture)
    request = request_of(EdgeRequest, values)
    check_pairs(values["prompts_file"], values["batch_by"], values["fields"])
    score(request, values)


def score(request: "EdgeRequest", values: Mapping[str, Any]) -> None:
    """Score the edges on all prompts, and write the table and the files beside it."""
    from decomp.cli.locating import job_of, open_named_model, say_lines
    from decomp.cli.running import claim_other_files, deliver
    from decomp.locate.edges.prompts import open_prompts, tokens_of  # imports torch
    from decomp.locate.edges.rows import summary
    from decomp.locate.edges.scoring import edges_work, ranked
    from decomp.report.circuits import draw, write_subgraph

    picture, subgraph = values["picture"], values["subgraph"]
    model, tokenizer = open_named_model(values)
    prompts = open_prompts(
        model, tokenizer, values["prompts_file"], values["bos"], values["batch_by"], values["fields"]
    )
    work, total = edges_work(model, prompts, request)

    def draw_strongest() -> None:
        result = total.result()
        found = summary(result, request).items()
        say_lines((f"{name}: {value}" for name, value in found if value is not None), values["quiet"])
        strongest = ranked(result.graph, result.scores)[: values["top"]]
        if picture is not None:
            draw(picture, result, strongest)
        if subgraph is not None:
            about = {**model.about(), "prompts": len(prompts), **summary(result, request)}
            write_subgraph(subgraph, about, result, strongest)

    if deliver(job_of(work, model, values, tokens_of(prompts)), values, at_end=draw_strongest):
        claim_other_files(values, picture, subgraph)
