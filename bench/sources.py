"""Time of ΔLP of every target, with all tokens, words, or sentences as sources, in one run."""

import click
import torch

from bench.measure import processor_seconds
from bench.shapes import SHAPES, check_length, make_model
from decomp.core.partition import Partition
from decomp.measures import Request, Text, find_measure


def evenly(length: int, sources: int) -> Partition:
    """Return a partition of tokens into sources of nearly equal length, with the first token apart."""
    return Partition.of([0, *(1 + i * (sources - 1) // (length - 1) for i in range(length - 1))])


@click.command()
@click.option("--shape", type=click.Choice(SHAPES), default="opt-125m", show_default=True)
@click.option("--length", default=256, show_default=True, help="Tokens.")
@click.option("--sources", "counts", type=int, multiple=True, help="Groups of tokens.  [default: T / 1.35 and 40]")
@click.option("--threads", type=int, default=torch.get_num_threads(), show_default=True)
def main(shape: str, length: int, counts: tuple[int, ...], threads: int) -> None:
    """Time ΔLP of every target of one text."""
    torch.set_num_threads(threads)
    model, ids = make_model(shape), torch.randint(4, 1000, (length,))
    check_length(shape, model, length)
    click.echo(f"{shape}, {length} tokens, {threads} threads, float32; sources pairs, processor seconds, speed-up")
    first = None
    for count in (length, *(counts or (round(length / 1.35), 40))):
        text = Text(ids, range(length - 1), sources=evenly(length, count))
        time = processor_seconds(lambda text=text: list(find_measure("delta_lp")(model, [text], Request())))  # type: ignore[misc]
        first = time if first is None else first
        pairs = int(text.partition.begun.sum())
        click.echo(f"{count:6} {pairs:8} {time:8.2f} {first / time:6.2f}")


if __name__ == "__main__":
    main()
