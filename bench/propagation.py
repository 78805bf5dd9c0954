"""The engine against the original algorithm and the machine's matrix-product peak, in one run.

Operations are dense-equivalent: for each (target, source) pair two for every entry of the matrices that carry it (20·D²
a layer of OPT and GPT-2), whatever is skipped. Two rates are sampled between the layers of what is measured: that of
products of 4096³, and that of blocks of rows with the first block's own weights. One thread is measured in processor
time, which others at work on the machine disturb little; several threads are measured by the clock.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click
import torch
from torch import Tensor

from bench import original
from bench.measure import Sampled, reset_peak, resident_bytes, sampled_peak, seconds_without
from bench.shapes import SHAPES, check_length, make_model
from decomp.core.engine import BLOCK_ROWS, propagate
from decomp.core.folding import FoldedNetwork, fold_block
from decomp.core.network import Attention, Network
from decomp.core.operating_point import OperatingPoint
from decomp.core.packed_attention import FoldedAttention
from decomp.core.packed_mlp import FoldedMLP
from decomp.core.pairs import pair_offset
from decomp.core.rules import GATE_RULES, GateRule, Rules
from decomp.io.amounts import DEFAULT_MEMORY, format_bytes, parse_bytes

WAYS = ("original", "engine")


@dataclass(frozen=True)
class Measured:
    """The time and memory of one case, and the rates of matrix products meanwhile, in operations a second."""

    seconds: float
    memory: int
    """Bytes at most beyond the model."""
    peak: float
    """The rate of large square products."""
    own_peak: float
    """The rate of products with the model's own weights."""


def measure(
    way: str, shape: str, rule: GateRule, length: int, texts: int, kept: int, active: float, threads: int, memory: int
) -> Measured:
    """Return what the propagation after the recording takes."""
    torch.set_num_threads(threads)
    model = make_model(shape, active)
    folded = model.folded(rule)
    large = sampled_peak(threads)
    own = Sampled([(torch.randn(BLOCK_ROWS, len(b)), b) for b in weights_of_a_block(folded)], large.clock)

    def sample() -> None:
        large.sample()
        own.sample()

    sample()
    before = reset_peak()
    drawn = [torch.randint(4, model.config.vocab_size, (length,)) for _ in range(texts)]
    points = [model.record(ids, rules=Rules(gate=rule)) for ids in drawn]
    time_taken = seconds_without(lambda: carry(way, folded, points, kept, memory, sample), large, own)
    return Measured(time_taken, resident_bytes("VmHWM") - before, large.rate, own.rate)


def carry(
    way: str,
    folded: FoldedNetwork,
    points: Sequence[OperatingPoint],
    kept: int,
    memory: int,
    after_layer: Callable[[], None],
) -> None:
    """Carry the contributions of all texts, and call something after the layers on their way."""
    if way == "original":
        for point in points:
            original.propagate(point, kept, after_layer)
    else:
        for _ in propagate(folded, points, kept, memory, lambda *_: after_layer()):
            pass


def weights_of_a_block(folded: FoldedNetwork) -> list[Tensor]:
    """Return the matrices of the first block that rows are multiplied with, as the engine holds them."""
    weights: list[Tensor] = []
    for branch in (branch for stage in fold_block(folded.network.blocks[0]) for branch in stage.branches):
        match branch:
            case FoldedAttention():
                weights += [branch.value, branch.output]
            case FoldedMLP():
                weights += [*(up.T for up in branch.ups), branch.down]
    return weights


def operations_of_a_pair(network: Network) -> int:
    """Return two for each entry of the matrices that carry a contribution through the network."""
    operators = [branch.operator for block in network.blocks for stage in block for branch in stage.branches]
    matrices = [
        each.weight
        for operator in operators
        for each in (*operator.inputs, operator.output, *([operator.value] if isinstance(operator, Attention) else []))
    ]
    return 2 * sum(matrix.numel() for matrix in matrices)


def in_fresh_process(*case: object) -> Measured:
    """Return the result of `measure` in a process of its own, since peak memory is a whole process's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, case)


@click.command()
@click.option("--shape", type=click.Choice(SHAPES), default="opt-125m", show_default=True)
@click.option("--length", "lengths", type=int, multiple=True, default=[256], show_default=True, help="Tokens; several.")
@click.option("--texts", type=int, default=1, show_default=True, help="Texts of each length, together.")
@click.option("--kept", "kepts", type=int, multiple=True, help="Decomposition lengths; several.  [default: all]")
@click.option("--active", "actives", type=float, multiple=True, default=[1.0], show_default=True, help="Active ReLUs.")
@click.option("--threads", type=int, default=torch.get_num_threads(), show_default=True)
@click.option("--memory", default=DEFAULT_MEMORY, show_default=True, help="Of the engine.")
@click.option("--gate-rule", "rule", type=click.Choice(GATE_RULES), default="half", show_default=True)
@click.option("--original/--no-original", "with_original", default=True, help="Run the original algorithm too.")
def main(
    shape: str,
    lengths: tuple[int, ...],
    texts: int,
    kepts: tuple[int, ...],
    actives: tuple[float, ...],
    threads: int,
    memory: str,
    rule: GateRule,
    with_original: bool,
) -> None:
    """Time the propagation of all contributions of some texts."""
    torch.set_num_threads(threads)
    model = make_model(shape)
    check_length(shape, model, max(lengths))
    each_pair = operations_of_a_pair(model.folded(rule).network)
    click.echo(
        f"{shape}, gate rule {rule}, {threads} threads, float32, {texts} at once; "
        "T kept active way seconds GFLOP/s of-peak of-own-products peak memory speed-up"
    )
    for length in lengths:
        for kept in kepts or (length,):
            for active in actives:
                pairs = pair_offset(length, min(kept, length))
                operations = texts * pairs * each_pair
                first = None
                for way in WAYS if with_original else WAYS[1:]:
                    case = (way, shape, rule, length, texts, kept, active, threads, parse_bytes(memory))
                    took = in_fresh_process(*case)
                    first = took.seconds if first is None else first
                    rate = operations / took.seconds
                    click.echo(
                        f"{length:5} {kept:5} {active:5.2f}  {way:9} {took.seconds:8.2f} {rate / 1e9:8.1f} "
                        f"{rate / took.peak:6.2f} {rate / took.own_peak:6.2f} {took.peak / 1e9:6.0f} "
                        f"{format_bytes(took.memory):>10} {first / took.seconds:6.2f}"
                    )


if __name__ == "__main__":
    main()
