"""Edge scores under a model of GPT-2-small's shape: seconds, peak memory, and the cost of one sample."""

import multiprocessing

import click
import torch

from bench.measure import reset_peak, resident_bytes, seconds
from bench.shapes import SHAPES, make_model
from decomp.io.amounts import DEFAULT_MEMORY, format_bytes, parse_bytes
from decomp.locate.edges.prompts import PromptPair
from decomp.locate.edges.request import EdgeRequest
from decomp.locate.edges.scoring import score_edges

RUNS = {
    "mask 0": ({"mask_value": 0.0}, 1),
    "5 mask values": ({"samples": 4}, 5),
    "eap_ig, 5 embeddings": ({"method": "eap_ig", "samples": 5}, 5),
}
"""The options of a request, and its number of passes with gradients."""


def random_pairs(count: int, length: int, vocab: int) -> list[PromptPair]:
    """Return prompt pairs of random tokens."""
    generator = torch.Generator().manual_seed(0)

    def draw(size: int) -> torch.Tensor:
        return torch.randint(4, vocab, (size,), generator=generator)

    return [PromptPair(draw(length), draw(length), draw(1), draw(1)) for _ in range(count)]


def measure(run: str, shape: str, count: int, length: int, threads: int, memory: int) -> tuple[float, int]:
    """Return the seconds of one scoring, and the bytes of peak memory of the whole process."""
    torch.set_num_threads(threads)
    model = make_model(shape)
    pairs = random_pairs(count, length, model.config.vocab_size)
    request = EdgeRequest(**RUNS[run][0], memory=memory)
    reset_peak()
    return seconds(lambda: score_edges(model, pairs, request)), resident_bytes("VmHWM")


@click.command()
@click.option("--shape", type=click.Choice(SHAPES), default="gpt2", show_default=True)
@click.option("--pairs", type=int, default=8, show_default=True)
@click.option("--length", type=int, default=15, show_default=True, help="Tokens of a prompt.")
@click.option("--threads", type=int, default=torch.get_num_threads(), show_default=True)
@click.option("--memory", default=DEFAULT_MEMORY, show_default=True)
def main(shape: str, pairs: int, length: int, threads: int, memory: str) -> None:
    """Time the scores of all edges on random prompt pairs."""
    click.echo(f"{shape}, {pairs} pairs of {length} tokens, {threads} threads, float32; seconds per-pass peak-memory")
    for run, (_, passes) in RUNS.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            time, held = pool.apply(measure, (run, shape, pairs, length, threads, parse_bytes(memory)))
        click.echo(f"{run:22} {time:7.2f} {time / passes:7.2f} {format_bytes(held):>10}")


if __name__ == "__main__":
    main()
