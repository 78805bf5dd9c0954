"""ΔLP from contributions, against the original code: all logits of one target at a time, with an autograd graph.

The rate of products of 4096³ is sampled between the parts of either. One thread is measured in processor time, which
others at work on the machine disturb little; several threads are measured by the clock.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click
import torch
from torch import Tensor

from bench import original
from bench.measure import Sampled, sampled_peak, seconds_without
from decomp.core.ablation import Unembedding, ablated_log2_prob
from decomp.core.pairs import Pairs
from decomp.core.partition import Partition

PARTS = 8
"""The number of parts of the work of either way, after each of which the rate of products is sampled."""


@dataclass(frozen=True)
class Inputs:
    """The contributions of one text, and what its predictions are computed from."""

    vectors: Tensor
    targets: Tensor
    states: Tensor
    next_ids: Tensor
    unembedding: Unembedding


def in_parts(targets: Sequence[Tensor], peak: Sampled) -> Iterator[Tensor]:
    """Yield the contributions of each target, and sample the peak after each part of them."""
    for number, vectors in enumerate(targets, 1):
        yield vectors
        if number % -(-len(targets) // PARTS) == 0:
            peak.sample()


def by_original(inputs: Inputs, peak: Sampled) -> None:
    """Compute ΔLP of all pairs as the original code does."""
    by_target = inputs.vectors.split(inputs.targets.bincount().tolist())
    with torch.enable_grad():
        original.delta_lp(in_parts(by_target, peak), inputs.states, inputs.next_ids, inputs.unembedding)


def by_engine(inputs: Inputs, peak: Sampled) -> None:
    """Compute ΔLP of all pairs as the package does."""
    size = -(-len(inputs.vectors) // PARTS)
    with torch.no_grad():
        for vectors, targets in zip(inputs.vectors.split(size), inputs.targets.split(size), strict=True):
            ablated_log2_prob(vectors, targets, inputs.states, inputs.next_ids, inputs.unembedding)
            peak.sample()


@click.command()
@click.option("--length", type=int, default=128, show_default=True)
@click.option("--hidden", type=int, default=768, show_default=True)
@click.option("--vocab", type=int, default=50272, show_default=True)
@click.option("--threads", type=int, default=torch.get_num_threads(), show_default=True)
def main(length: int, hidden: int, vocab: int, threads: int) -> None:
    """Time ΔLP of every pair of one text from its contributions."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    targets, _ = Pairs(Partition.tokens(length), length).indices()
    vectors = 0.1 * torch.randn(len(targets), hidden)
    states, next_ids = torch.randn(length, hidden), torch.randint(vocab, (length,))
    unembedding = Unembedding(0.05 * torch.randn(vocab, hidden, requires_grad=True))
    inputs, operations = Inputs(vectors, targets, states, next_ids, unembedding), 2 * len(targets) * hidden * vocab
    click.echo(f"T={length} hidden={hidden} vocab={vocab} {threads} threads; way seconds peak of-peak speed-up")
    first = None
    for way, work in (("original", by_original), ("engine", by_engine)):
        peak = sampled_peak(threads)
        peak.sample()
        time = seconds_without(lambda work=work, peak=peak: work(inputs, peak), peak)  # type: ignore[misc]
        first = first or time
        click.echo(
            f"{way:9} {time:8.2f} {peak.rate / 1e9:6.0f} {operations / time / peak.rate:6.2f} {first / time:6.2f}"
        )


if __name__ == "__main__":
    main()
