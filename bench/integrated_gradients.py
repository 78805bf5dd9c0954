"""Integrated gradients of every target of a text: ours against captum's, called for each target on its prefix."""

import logging
import math
from functools import partial

import click
import numpy as np
import torch
from captum.attr import LayerIntegratedGradients
from torch import Tensor

from bench.measure import sampled_peak, seconds_without
from bench.shapes import SHAPES, check_length, make_model
from decomp.measures import SCORES, GradientOptions, Request, Text
from decomp.models.base import DecomposedModel

SAMPLES = 8
"""How often at most the rate of matrix products is sampled between the targets."""
BASELINE = 5
"""The id of the baseline token: captum's baselines are token ids here."""


def ours(model: DecomposedModel, ids: Tensor, steps: int) -> Tensor:
    """Return our integrated gradients of every target."""
    request = Request(gradients=GradientOptions(steps=steps, baseline=BASELINE))
    ((scores,),) = SCORES["integrated_gradients"](model, [Text(ids, range(len(ids) - 1))], request)
    return scores.scores


def captum(model: DecomposedModel, ids: Tensor, target: int, steps: int, last_logits: bool) -> Tensor:
    """Return captum's attributions of one target on its prefix, all nodes of the integral in one batch."""

    def forward(prefix: Tensor) -> Tensor:
        logits = model(prefix, use_cache=False, logits_to_keep=int(last_logits)).logits[:, -1]
        return logits.log_softmax(-1)[:, ids[target + 1]] / math.log(2)

    prefix = ids[None, : target + 1]
    method = LayerIntegratedGradients(forward, model.get_input_embeddings())
    scores: Tensor = method.attribute(prefix, baselines=torch.full_like(prefix, BASELINE), n_steps=steps)
    return scores[0].sum(-1)


@click.command()
@click.option("--shape", type=click.Choice(SHAPES), default="gpt2", show_default=True)
@click.option("--length", type=int, default=128, show_default=True, help="Tokens of the text.")
@click.option("--steps", type=int, default=20, show_default=True)
@click.option("--sample", type=int, default=8, show_default=True, help="Targets that captum runs on; 0: all of them.")
@click.option("--last-logits", is_flag=True, help="Let captum's model compute the logits of the last position alone.")
@click.option("--threads", type=int, default=torch.get_num_threads(), show_default=True)
def main(shape: str, length: int, steps: int, sample: int, last_logits: bool, threads: int) -> None:
    """Time both ways; captum on evenly spaced targets, with its seconds interpolated in between and summed."""
    torch.set_num_threads(threads)
    logging.getLogger("decomp").setLevel(logging.ERROR)
    model = make_model(shape)
    check_length(shape, model, length)
    ids = torch.randint(4, model.config.vocab_size, (length,), generator=torch.Generator().manual_seed(1))
    targets = np.unique(np.linspace(0, length - 2, sample or length - 1).round().astype(int)).tolist()
    scores: list[Tensor] = []
    peak = sampled_peak(threads)
    ours(model, ids[:4], 1)
    captum(model, ids, 4, 1, last_logits)
    peak.sample()
    our_time = seconds_without(lambda: scores.append(ours(model, ids, steps)), peak)
    times, gap = [], 0.0
    for number, target in enumerate(targets):
        if number % -(-len(targets) // SAMPLES) == 0:
            peak.sample()
        theirs: list[Tensor] = []
        work = partial(captum, model, ids, target, steps, last_logits)
        times.append(seconds_without(lambda work=work, kept=theirs: kept.append(work()), peak))  # type: ignore[misc]
        gap = max(gap, (theirs[0] - scores[0][target, : target + 1]).abs().max().item())
    peak.sample()
    their_time = float(np.interp(np.arange(length - 1), targets, times).sum())
    click.echo(
        f"{shape}, {length} tokens, {length - 1} targets, {steps} nodes, {threads} threads, float32, "
        f"matrix products at {peak.rate / 1e9:.0f} GFLOP/s meanwhile"
    )
    click.echo(f"captum {their_time:8.1f} s (measured: {len(targets)} targets, {sum(times):.1f} s)")
    click.echo(f"ours   {our_time:8.1f} s (all targets)   speed-up {their_time / our_time:.2f}")
    click.echo(f"largest difference of a score on the measured targets: {gap:.1e} bits")


if __name__ == "__main__":
    main()
