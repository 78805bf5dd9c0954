"""`decomp neurons find`: items in, knowledge neurons out."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from decomp.cli import layout, options
from decomp.cli.neurons import items_file, kind_of_neurons
from decomp.locate.conventions import NEURONS

if TYPE_CHECKING:
    from decomp.locate.neurons.request import NeuronRequest


@layout.command(
    "find",
    """
    decomp neurons find demo-facts.jsonl demo-opt --steps 4 -o neurons.tsv
    decomp neurons find demo-edits.jsonl demo-opt --steps 2 --mask-level line --counts
    """,
)
@items_file
@options.model
@layout.section(
    "What is attributed",
    options.convention(NEURONS),
    options.choice(
        "--function",
        ["log2_prob", "prob", "logit"],
        "log2_prob",
        "Function of the whole target that is attributed: log2 P(Y|X) in bits, P(Y|X), or the sum of its logits.",
    ),
    click.option(
        "--contrast", is_flag=True, help="Subtract the same function of the foil; of an edit, of the text before it."
    ),
    options.choices(
        "--mask-level",
        "levels",
        ["token", "line", "block"],
        "token",
        "Part that is cut out of an edit, unless the item has a mask of its own. Several at once.",
    ),
    kind_of_neurons,
    options.choice(
        "--tokens",
        ["together", "separately"],
        "together",
        "Scale neurons at all predicted tokens at once, or at one at a time for that token; the scores are added up.",
    ),
    options.whole_number("--steps", "Number m of steps of the integral.", 20),
    options.choice(
        "--quadrature",
        ["riemann", "linspace", "gauss-legendre", "left", "right", "midpoint", "trapezoid"],
        "riemann",
        "riemann: i/m for i = 0 … m (Dai et al.); linspace: m values from 0 to 1 (their code); gauss-legendre: m "
        "nodes, more exact where activations are smooth.",
    ),
)
@layout.section(
    "Which neurons are found",
    options.share("--threshold", 0.2, "Share of an item's largest score that a neuron must reach."),
    options.share("--share", 0.7, "Share of a fact's prompts (items with the same `fact`) that must find a neuron."),
)
@layout.section(
    "Rows",
    click.option("--all", "everything", is_flag=True, help="Write every neuron; column found says which were."),
    click.option("--per-position", is_flag=True, help="A row for each predicted token, not their sum."),
    click.option("--counts", is_flag=True, help="Write how many neurons were found in each layer instead."),
)
@options.locate_options(
    click.option("--masked", type=options.FILE, help="JSONL to write: what was cut, the text with [MASK]."),
    options.plot,
)
def command(**values: Any) -> None:
    """Find the neurons that the completions of ITEMS rest on.

    They are found by integrated gradients of MODEL. ITEMS is JSONL, CSV or TSV: prompt and target (and foil); or
    relation, subject, target_true, target_false (CounterFact's own JSON, too); or pre_text and post_text, an edit whose
    changed part is completed from what precedes it, with a mask of its own if you like: a level, or the part of
    post_text. Rows are neurons by rank; `residual` says how far the scores of a layer are from what all its neurons
    give (`effect`).
    """
    from decomp.cli.locating import check_outputs, request_of
    from decomp.locate.forms import check_levels, item_records
    from decomp.locate.neurons.request import NeuronRequest
    from decomp.report.plots import check_picture

    check_outputs(values, check_picture)
    request = request_of(NeuronRequest, values)
    check_levels(values["levels"])
    item_records(values["items_file"], values["contrast"], values["fields"])
    find(request, values)


def find(request: "NeuronRequest", values: Mapping[str, Any]) -> None:
    """Find the neurons of all items, and write the table and the files beside it."""
    from decomp.cli.locating import job_of, lines_file, open_named_model, say_lines
    from decomp.cli.running import claim_other_files, deliver
    from decomp.locate.neurons.finding import NeuronTable, neurons_work, wider_cuts  # imports torch
    from decomp.locate.neurons.items import open_items, tokens_of
    from decomp.locate.neurons.rows import cut_of
    from decomp.report.plots import layer_histogram, save_picture

    picture = values["picture"]
    model, tokenizer = open_named_model(values)
    items = open_items(
        model, tokenizer, values["items_file"], values["levels"], request.contrast, values["bos"], values["fields"]
    )
    found = NeuronTable(**{name: values[name] for name in ("counts", "everything", "per_position")})

    def draw() -> None:
        say_lines((wider_cuts(items), found.incomplete_line()), values["quiet"])
        if picture is not None:
            save_picture(layer_histogram(found.counted), picture)

    job = job_of(neurons_work(model, items, request, found), model, values, tokens_of(items))
    with lines_file(values["masked"], map(cut_of, items)):
        whole = deliver(job, values, at_end=draw)
    claim_other_files(values, values["masked"])
    if whole:
        claim_other_files(values, picture)
