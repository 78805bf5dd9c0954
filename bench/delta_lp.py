"""ΔLP from contributions, against the original code: all logits of one target at a time, with an autograd graph."""

import click
import torch

from bench import original
from bench.measure import gemm_peak, seconds
from decomp.core.ablation import Unembedding, ablated_log2_prob
from decomp.core.pairs import Pairs
from decomp.core.partition import Partition


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
    by_target = vectors.split(targets.bincount().tolist())
    peak = gemm_peak()
    with torch.enable_grad():
        theirs = seconds(lambda: original.delta_lp(iter(by_target), states, next_ids, unembedding))
    with torch.no_grad():
        ours = seconds(lambda: ablated_log2_prob(vectors, targets, states, next_ids, unembedding), repeat=2)
    operations = 2 * len(targets) * hidden * vocab
    click.echo(f"T={length} hidden={hidden} vocab={vocab} {threads} threads; way seconds of-peak speed-up")
    for way, time in (("original", theirs), ("engine", ours)):
        click.echo(f"{way:9} {time:8.2f} {operations / time / peak:6.2f} {theirs / time:6.2f}")


if __name__ == "__main__":
    main()
