"""`decomp layers`: the contribution of each layer to the prediction of a fact."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from decomp.cli import kinds, layout, options

if TYPE_CHECKING:
    from decomp.locate.layers.request import LayerRequest


@layout.command(
    "layers",
    """
    decomp layers demo-facts.jsonl demo-opt -o layers.tsv
    decomp layers demo-facts.jsonl demo-opt --measure direct --aggregate
    """,
)
@click.argument("facts_file", metavar="FACTS", type=kinds.INPUT)
@options.model
@layout.section(
    "Measures",
    options.choices(
        "--measure",
        "measures",
        ["gradient_x_activation", "direct"],
        "gradient_x_activation",
        "Gradient × activation at every token; direct: exact shares of the last position's logits. Several at once.",
    ),
    options.choices(
        "--component",
        "components",
        ["mlp", "attention", "residual"],
        "mlp",
        "Components whose outputs gradient_x_activation scores. Several at once.",
    ),
    options.option(
        "--function",
        default="contrast_logit",
        help="Function that is attributed: contrast_logit, contrast_log2_prob, logit; for gradients also log2_prob, "
        "prob.",
    ),
    options.multi_token("Objects"),
    options.choice(
        "--reduce",
        ["sum", "absolute", "norm"],
        "sum",
        "Gradient × activation over hidden: signed sum, its absolute value, or the norm.",
    ),
    options.choice("--norm", ["l1", "l2"], "l2", "Norm of --reduce norm."),
)
@layout.section(
    "Means over items",
    click.option("--aggregate", "aggregated", is_flag=True, help="Means over items by role and layer, with intervals."),
    options.option(
        "--confidence",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.95,
        help="Confidence level of intervals.",
    ),
    options.seed_of("the bootstrap"),
)
@options.locate_options(options.plot)
def command(**values: Any) -> None:
    """Score every layer of MODEL on every fact of FACTS.

    Scores say which layers prefer the true object to the false one.

    FACTS is JSONL, CSV or TSV with relation (or prompt: a template with {}), subject, target_true and target_false, or
    CounterFact's own JSON. Writes one row per item, component, layer and token. Direct shares, of the layers and the
    embedding and bias, add up to the logit difference exactly.
    """
    from decomp.cli.locating import check_outputs, request_of
    from decomp.locate.forms import fact_records
    from decomp.locate.layers.request import LayerRequest
    from decomp.report.plots import check_picture

    check_outputs(values, check_picture)
    request = request_of(LayerRequest, values)
    fact_records(values["facts_file"], values["fields"])
    needed = "needs --aggregate, whose intervals it is for: give that too, or leave it out"
    options.refuse_unless(values["aggregated"], needed, "confidence")
    score(request, values)


def score(request: "LayerRequest", values: Mapping[str, Any]) -> None:
    """Score the layers for all facts, and write the table and the picture beside it."""
    from decomp.cli.locating import job_of, open_named_model
    from decomp.cli.running import claim_other_files, deliver, ignore
    from decomp.locate.layers.rows import Means, MeanSummary  # imports torch
    from decomp.locate.layers.table import layers_work, open_facts
    from decomp.report.plots import heat_map, save_picture

    picture, means = values["picture"], Means()
    how = (means, values["confidence"], values["seed"])
    model, tokenizer = open_named_model(values)
    facts = open_facts(model, tokenizer, values["facts_file"], values["bos"], values["fields"])
    work = layers_work(model, facts, request, MeanSummary(*how) if values["aggregated"] else None)
    job = job_of(work, model, values, (fact.ids for fact in facts))

    def draw() -> None:
        if picture is not None:
            save_picture(heat_map(means.rows(*how[1:]), request.function), picture)

    if deliver(job, values, ignore if values["aggregated"] or picture is None else means.add_block, draw):
        claim_other_files(values, picture)
