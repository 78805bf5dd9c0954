"""`decomp edges check`: how much of a behaviour the best edges carry."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from decomp.cli import kinds, layout, options
from decomp.cli.edges import behaviour_options, prompts_file

if TYPE_CHECKING:
    from decomp.locate.edges.request import Behaviour


@layout.command(
    "check",
    """
    decomp edges score demo-pronouns.json demo-opt --mask-value 0 -o edges.tsv
    decomp edges check edges.tsv demo-pronouns.json demo-opt --keep 10 --keep 100 --random 1
    """,
)
@click.argument("edges_file", metavar="EDGES", type=kinds.INPUT)
@prompts_file
@options.model
@layout.section(
    "What is kept",
    click.option(
        "--keep",
        "counts",
        type=click.IntRange(0),
        multiple=True,
        help="Number of edges kept. Several at once.  [default: 1, 2, 5, 10, …]",
    ),
    options.choice(
        "--circuit",
        ["top", "connected", "greedy"],
        "top",
        help="Which edges are kept: the n best; these without dead ends; n from the logits backward, always the best "
        "that leads to one already taken, without dead ends.",
    ),
    options.whole_number("--random", "Number of random rankings to compare with.", 3, least=0),
    options.seed_of("the random rankings"),
)
@behaviour_options
@options.locate_options()
def command(**values: Any) -> None:
    """Keep the n best edges of EDGES, ablate all others.

    The rows say how much of the clean behaviour remains. EDGES is a table that `decomp edges` wrote with the same
    model, beginning and ablation; edges that it lacks count as 0. Writes one row per ranking and n: the edges kept,
    the loss L, and its share of the way from all edges ablated (0) to none (1).
    """
    from decomp.cli.locating import check_outputs, request_of, with_table
    from decomp.locate.edges.request import Behaviour
    from decomp.locate.forms import check_pairs
    from decomp.locate.limits import check_once

    values = with_table(values, "edges_file")
    check_outputs(values)
    behaviour = request_of(Behaviour, values)
    check_once("--keep", values["counts"])
    check_pairs(values["prompts_file"], values["batch_by"], values["fields"])
    check(behaviour, values)


def check(behaviour: "Behaviour", values: Mapping[str, Any]) -> None:
    """Check the best edges of a table on all prompts, and write the table of losses."""
    from decomp.cli.locating import job_of, open_named_model
    from decomp.cli.running import deliver
    from decomp.locate.edges.checking import check_made, check_work, default_counts, rankings  # imports torch
    from decomp.locate.edges.graph import graph_of
    from decomp.locate.edges.prompts import open_prompts, tokens_of
    from decomp.locate.edges.rows import read_edges

    model, tokenizer = open_named_model(values)
    graph = graph_of(model)
    check_made(values["edges_file"], model, behaviour, {name: values[name] for name in ("bos", "batch_by")})
    orders = rankings(graph, read_edges(values["edges_file"], graph), values["random"], values["seed"])
    prompts = open_prompts(
        model, tokenizer, values["prompts_file"], values["bos"], values["batch_by"], values["fields"]
    )
    counts = values["counts"] or default_counts(len(orders["score"]))
    work, _ = check_work(model, graph, prompts, orders, counts, behaviour, values["circuit"])
    deliver(job_of(work, model, values, tokens_of(prompts)), values)
