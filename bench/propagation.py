"""The engine against the original algorithm and the machine's matrix-product peak, in one run.

Operations are dense-equivalent: for each (target, source) pair two for every entry of the matrices that carry it (20·D²
a layer of OPT and GPT-2), whatever is skipped.
"""

import multiprocessing
from collections.abc import Callable

import click
import torch

from bench import original
from bench.measure import gemm_peak, reset_peak, resident_bytes, seconds
from bench.shapes import SHAPES, make_model
from decomp.core.engine import propagate
from decomp.core.network import Attention, Network
from decomp.core.pairs import pair_offset
from decomp.core.rules import GATE_RULES, GateRule, Rules
from decomp.io.amounts import DEFAULT_MEMORY, format_bytes, parse_bytes

WAYS = ("original", "engine")


def measure(
    way: str, shape: str, rule: GateRule, length: int, texts: int, kept: int, active: float, threads: int, memory: int
) -> tuple[float, int]:
    """Return the seconds of the propagation after the recording, and the bytes of peak memory beyond the model."""
    torch.set_num_threads(threads)
    model = make_model(shape, active)
    before = reset_peak()
    drawn = [torch.randint(4, model.config.vocab_size, (length,)) for _ in range(texts)]
    points = [model.record(ids, rules=Rules(gate=rule)) for ids in drawn]
    if way == "original":
        work: Callable[[], object] = lambda: [original.propagate(point, kept) for point in points]  # noqa: E731
    else:
        folded = model.folded(rule)
        work = lambda: [None for _ in propagate(folded, points, kept, memory)]  # noqa: E731
    return seconds(work), resident_bytes("VmHWM") - before


def operations_of_a_pair(network: Network) -> int:
    """Return the operations of one pair: two for each entry of the matrices that carry a contribution."""
    operators = [branch.operator for block in network.blocks for stage in block for branch in stage.branches]
    matrices = [
        each.weight
        for operator in operators
        for each in (*operator.inputs, operator.output, *([operator.value] if isinstance(operator, Attention) else []))
    ]
    return 2 * sum(matrix.numel() for matrix in matrices)


def in_fresh_process(*case: object) -> tuple[float, int]:
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
    each_pair = operations_of_a_pair(make_model(shape).folded(rule).network)
    click.echo(
        f"{shape}, gate rule {rule}, {threads} threads, float32, {texts} at once; "
        "T kept active way seconds GFLOP/s of-peak memory speed-up"
    )
    for length in lengths:
        for kept in kepts or (length,):
            for active in actives:
                pairs = pair_offset(length, min(kept, length))
                operations = texts * pairs * each_pair
                peak, first = gemm_peak(), None
                for way in WAYS if with_original else WAYS[1:]:
                    case = (way, shape, rule, length, texts, kept, active, threads, parse_bytes(memory))
                    time, held = in_fresh_process(*case)
                    first = time if first is None else first
                    rate = operations / time
                    click.echo(
                        f"{length:5} {kept:5} {active:5.2f}  {way:9} {time:8.2f} {rate / 1e9:8.1f} {rate / peak:6.2f} "
                        f"{format_bytes(held):>10} {first / time:6.2f}"
                    )


if __name__ == "__main__":
    main()
