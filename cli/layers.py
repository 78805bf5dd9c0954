"""`decomp layers`: what each layer gives to a fact."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from decomp.cli import options

if TYPE_CHECKING:
    from decomp.locate.facts import Fact
    from decomp.locate.layers.rows import LayerRow
    from decomp.models.base import DecomposedModel


@click.command("layers")
@click.argument("facts_file", metavar="FACTS", type=click.Path(path_type=Path))
@options.model
@options.output
@options.table_format
@click.option(
    "--measure",
    "measures",
    type=click.Choice(["gradient_x_activation", "direct"]),
    multiple=True,
    default=["gradient_x_activation"],
    show_default=True,
    help="Gradient × activation at every token; direct: exact shares of the last position's logits. Several at once.",
)
@click.option(
    "--component",
    "components",
    type=click.Choice(["mlp", "attention", "residual"]),
    multiple=True,
    default=["mlp"],
    show_default=True,
    help="Whose outputs gradient_x_activation looks at. Several at once.",
)
@click.option(
    "--function",
    default="contrast_logit",
    show_default=True,
    help="What is attributed: contrast_logit, contrast_log2_prob, logit; for gradients also log2_prob, prob.",
)
@click.option("--aggregate", "aggregated", is_flag=True, help="Means over items by role and layer, with intervals.")
@click.option("--confidence", type=click.FloatRange(0, 1), default=0.95, show_default=True, help="Of the intervals.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap.")
@options.plot
@options.memory
@options.placement_options
@options.prompt_bos
@options.overwrite
@options.quiet
def command(
    facts_file: Path,
    model: str,
    output: Path | None,
    format_name: str | None,
    measures: tuple[str, ...],
    components: tuple[str, ...],
    function: str,
    aggregated: bool,
    confidence: float,
    seed: int,
    picture: Path | None,
    memory: str,
    device: str,
    dtype: str,
    revision: str | None,
    bos: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Score every layer of MODEL on every fact of FACTS: which ones prefer the true object to the false one?

    FACTS is JSONL, CSV or TSV with relation (or prompt: a template with {}), subject, target_true and
    target_false. Writes one row per item, component, layer and token. Direct shares, of the layers and the
    embedding and bias, add up to the logit difference at the last position exactly.
    """
    from decomp.cli.common import open_model, progress, table
    from decomp.corpus.windows import beginning_of_sequence
    from decomp.io.amounts import parse_bytes
    from decomp.locate.facts import read_facts
    from decomp.locate.layers.rows import LayerRow, MeanRow, aggregate
    from decomp.locate.layers.scoring import check_linear
    from decomp.measures.functions import find_function
    from decomp.report.plots import check_picture, heat_map, save_picture
    from decomp.tables.files import check_table

    find_function(function)
    if "direct" in measures:
        check_linear(function)
    if picture is not None:
        check_picture(picture)
    check_table(output, format_name, picture, inputs=(facts_file, model), overwrite=overwrite)
    budget = parse_bytes(memory)
    decomposed, tokenizer = open_model(model, dtype, device, revision)
    bos_id = beginning_of_sequence(tokenizer, decomposed.config) if bos else None
    facts = read_facts(facts_file, tokenizer, bos_id, decomposed.max_length())

    kept: list[LayerRow] = []
    columns = MeanRow._fields if aggregated else LayerRow._fields
    with table(output, format_name, columns) as write, progress(len(facts) * len(measures), quiet, "item") as bar:
        for rows in scored(decomposed, facts, measures, components, function, budget):
            if not aggregated:
                write(rows)
            if aggregated or picture is not None:
                kept.extend(rows)
            bar.update()
        means = aggregate(kept, confidence, seed)
        if aggregated:
            write(means)
    if picture is not None:
        save_picture(heat_map(means, function), picture)


def scored(
    model: "DecomposedModel",
    facts: "list[Fact]",
    measures: tuple[str, ...],
    components: tuple[str, ...],
    function: str,
    memory: int,
) -> "Iterator[list[LayerRow]]":
    """The rows of each measure and fact."""
    from decomp.locate.layers.rows import direct_rows, gradient_rows
    from decomp.locate.layers.scoring import direct_shares, gradient_x_activation

    if "gradient_x_activation" in measures:
        results = gradient_x_activation(model, facts, function, components, memory)
        for item, (fact, scores) in enumerate(zip(facts, results, strict=True)):
            yield list(gradient_rows(item, fact, scores, function))
    if "direct" in measures:
        for item, fact in enumerate(facts):
            yield list(direct_rows(item, fact, direct_shares(model, fact, function), function))
