"""Time of one target's readouts and of ΔLP of its strongest sources in a long text, against that of all pairs."""

from dataclasses import replace
from functools import partial

import click
import torch

from bench.measure import processor_seconds
from bench.shapes import SHAPES, check_length, make_model
from decomp.core.model import Model
from decomp.io.amounts import DEFAULT_MEMORY, parse_bytes
from decomp.measures import Request, Text, find_measure


def forward(model: Model, text: Text) -> None:
    """Run the plain model on a text."""
    with torch.no_grad():
        model.base_model(text.ids[None])


def scored(model: Model, text: Text, measure: str, request: Request) -> None:
    """Score a text by one measure."""
    list(find_measure(measure)(model, [text], request))


@click.command()
@click.option("--shape", type=click.Choice(SHAPES), default="gpt2", show_default=True)
@click.option("--length", type=int, default=1024, show_default=True, help="Tokens.")
@click.option("--span", type=int, default=16, show_default=True, help="Tokens that are predicted together.")
@click.option(
    "--strongest", type=int, default=31, show_default=True, help="Sources of the last target that are carried."
)
@click.option("--threads", type=int, default=torch.get_num_threads(), show_default=True)
@click.option("--memory", default=DEFAULT_MEMORY, show_default=True)
@click.option("--all-pairs/--no-all-pairs", default=True, help="Carry the contributions of all pairs too.")
def main(shape: str, length: int, span: int, strongest: int, threads: int, memory: str, all_pairs: bool) -> None:
    """Time a forward pass, the readouts of one target and of a span, ΔLP of the strongest sources, and of all pairs."""
    torch.set_num_threads(threads)
    model = make_model(shape)
    check_length(shape, model, length)
    ids = torch.randint(4, model.config.vocab_size, (length,))
    last, end = Text(ids, range(length - 2, length - 1)), Text(ids, range(length - 1 - span, length - 1))
    request = Request(memory=parse_bytes(memory))
    together, few = replace(request, span=span), replace(request, strongest=strongest)
    ways = {
        "a plain forward pass": (partial(forward, model, last), 3),
        "first_order of the last target": (partial(scored, model, last, "first_order", request), 3),
        "decomposed_logit of the last target": (partial(scored, model, last, "decomposed_logit", request), 3),
        f"first_order of a span of {span}": (partial(scored, model, end, "first_order", together), 3),
        f"delta_lp of its {strongest} strongest sources": (partial(scored, model, last, "delta_lp", few), 1),
    }
    if all_pairs:
        ways["all pairs carried, delta_lp of one target"] = (partial(scored, model, last, "delta_lp", request), 1)
    click.echo(f"{shape}, {length} tokens, {threads} threads, float32; way, processor seconds, forward passes")
    plain = None
    for name, (work, repeat) in ways.items():
        time = processor_seconds(work, repeat)
        plain = plain or time
        click.echo(f"{name:42} {time:9.2f} {time / plain:9.2f}")


if __name__ == "__main__":
    main()
