"""`decomp neurons find`: items in, knowledge neurons out."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decomp.cli import options

if TYPE_CHECKING:
    from decomp.locate.neurons.items import Asked


@click.command("find")
@click.argument("items_file", metavar="ITEMS", type=click.Path(path_type=Path))
@options.model
@options.output
@options.table_format
@click.option(
    "--function",
    type=click.Choice(["log2_prob", "prob", "logit"]),
    default="log2_prob",
    show_default=True,
    help="What is attributed, of the whole target: log2 P(Y|X) in bits, P(Y|X), or the sum of its logits.",
)
@click.option("--contrast", is_flag=True, help="Less the same for the foil: of an edit, what was there before.")
@click.option(
    "--mask-level",
    "levels",
    type=click.Choice(["token", "line", "block"]),
    multiple=True,
    default=["token"],
    show_default=True,
    help="What is cut out of an edit. Several at once.",
)
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="m, of the integral.")
@click.option(
    "--quadrature",
    type=click.Choice(["riemann", "gauss-legendre"]),
    default="riemann",
    show_default=True,
    help="riemann: i/m for i = 0 … m (Dai et al.); gauss-legendre: m nodes, more exact where activations are smooth.",
)
@click.option(
    "--threshold", type=click.FloatRange(0, 1), default=0.2, show_default=True, help="Of an item's largest score."
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    default=0.7,
    show_default=True,
    help="Of a fact's prompts (items with the same `fact`) that must find a neuron.",
)
@click.option("--all", "everything", is_flag=True, help="Write every neuron, found or not.")
@click.option("--per-position", is_flag=True, help="A row for each predicted token, not their sum.")
@click.option("--counts", is_flag=True, help="Write how many neurons were found in each layer instead.")
@click.option("--masked", type=click.Path(path_type=Path), help="JSONL to write: what was cut, the text with [MASK].")
@options.plot
@options.memory
@options.placement_options
@options.prompt_bos
@options.overwrite
@options.quiet
def command(
    items_file: Path,
    model: str,
    output: Path | None,
    format_name: str | None,
    function: str,
    contrast: bool,
    levels: tuple[str, ...],
    steps: int,
    quadrature: str,
    threshold: float,
    share: float,
    everything: bool,
    per_position: bool,
    counts: bool,
    masked: Path | None,
    picture: Path | None,
    memory: str,
    device: str,
    dtype: str,
    revision: str | None,
    bos: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Find the neurons of MODEL that the completions of ITEMS rest on, by integrated gradients.

    ITEMS is JSONL, CSV or TSV: prompt and target (and foil); or relation, subject, target_true, target_false; or
    pre_text and post_text, an edit whose changed part is completed from what precedes it. Rows are neurons by
    rank; `residual` says how far the scores of a layer are from what all its neurons give (`effect`).
    """
    from decomp.cli.common import destination, open_model, progress, say, table
    from decomp.corpus.tokens import beginning_of_sequence
    from decomp.io.amounts import parse_bytes
    from decomp.locate.neurons.items import read_asked
    from decomp.locate.neurons.rows import CountRow, NeuronRow, count_rows, found, neuron_rows, shares
    from decomp.locate.neurons.scoring import RESIDUAL_WARNED, integrated_gradients
    from decomp.report.plots import check_picture, layer_histogram, save_picture
    from decomp.tables.files import check_table

    budget = parse_bytes(memory)
    if picture is not None:
        check_picture(picture)
    check_table(output, format_name, masked, picture, inputs=(items_file, model), overwrite=overwrite)
    decomposed, tokenizer = open_model(model, dtype, device, revision)
    bos_id = beginning_of_sequence(tokenizer, decomposed.config) if bos else None
    levels = tuple(dict.fromkeys(levels))
    asked = read_asked(items_file, tokenizer, bos_id, decomposed.max_length(), levels, contrast)
    facts: dict[tuple[str, str], list[Asked]] = {}
    for one in asked:
        facts.setdefault((one.fact, one.level), []).append(one)

    counted: list[CountRow] = []
    incomplete = 0
    with ExitStack() as files:
        columns = CountRow._fields if counts else NeuronRow._fields
        write = files.enter_context(table(output, format_name, columns))
        bar = files.enter_context(progress(len(asked), quiet, "item"))
        if masked is not None:
            beside = files.enter_context(destination(masked))
            beside.writelines(json.dumps(cut_of(one), ensure_ascii=False) + "\n" for one in asked)
        for prompts in facts.values():
            results = []
            for one in prompts:
                each = [
                    integrated_gradients(decomposed, completion, function, quadrature, steps, budget)
                    for completion in one.completions
                ]
                results.append(each[0].minus(each[1]) if contrast else each[0])
                incomplete += results[-1].incomplete
                bar.update()
            masks = [found(result.scores.sum(1), threshold) for result in results]
            shared = shares(masks)
            for one, result, mask in zip(prompts, results, masks, strict=True):
                kept = mask & (shared >= share)
                counted.extend(count_rows(one, kept))
                if not counts:
                    tokens = tokenizer.convert_ids_to_tokens([i for c in one.completions for i in c.target.tolist()])
                    rows = kept | everything
                    write(neuron_rows(one, result, rows, shared, tokens if per_position else None))
        if counts:
            write(counted)
    if incomplete:
        say(
            f"{incomplete} of {len(asked)} completions: scores of a layer miss their sum (column residual) by more "
            f"than {RESIDUAL_WARNED:.0%} of the largest effect; more --steps or --quadrature gauss-legendre help",
            quiet,
        )
    if picture is not None:
        save_picture(layer_histogram(counted), picture)


def cut_of(one: "Asked") -> dict[str, Any]:
    """What a person checks: the text with `[MASK]`, and what was there."""
    cut = one.cut
    names = {"item": one.item, "fact": one.fact, "level": one.level, "cut": cut.level}
    return {**names, "masked": cut.masked, "old": cut.old, "new": cut.new}
