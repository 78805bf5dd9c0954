"""Measuring: seconds, the machine's matrix-product peak, and peak memory."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor


def seconds(work: Callable[[], object], repeat: int = 1) -> float:
    """Return the seconds of the shortest of `repeat` runs."""
    best = float("inf")
    for _ in range(repeat):
        begin = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return best


def processor_seconds(work: Callable[[], object], repeat: int = 1) -> float:
    """Return the least processor seconds of `repeat` runs: steadier than the clock on a machine that others use."""
    best = float("inf")
    for _ in range(repeat):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


@dataclass
class Sampled:
    """The rate of matrix products, measured a moment at a time between the steps of other work."""

    factors: Sequence[tuple[Tensor, Tensor]]
    clock: Callable[[], float]
    seconds: float = 0.0
    operations: int = 0

    @cached_property
    def products(self) -> list[Tensor]:
        """Return what the products are written to."""
        return [a.new_empty(len(a), b.shape[1]).fill_(0) for a, b in self.factors]

    def sample(self) -> None:
        """Multiply each pair of factors once."""
        for (a, b), out in zip(self.factors, self.products, strict=True):
            begin = self.clock()
            torch.mm(a, b, out=out)
            self.seconds += self.clock() - begin
            self.operations += 2 * a.numel() * b.shape[1]

    @property
    def rate(self) -> float:
        """Return floating-point operations a second."""
        return self.operations / self.seconds


LARGE = 4096
"""The size of the square matrices by whose product a machine's rate is sampled."""


def clock_for(threads: int) -> Callable[[], float]:
    """Return processor time for one thread, which others at work disturb little, else the clock."""
    return time.process_time if threads == 1 else time.perf_counter


def sampled_peak(threads: int) -> Sampled:
    """Return the rate of large square products, to be sampled between the steps of what is measured."""
    return Sampled([(torch.randn(LARGE, LARGE), torch.randn(LARGE, LARGE))], clock_for(threads))


def seconds_without(work: Callable[[], object], *samples: Sampled) -> float:
    """Return the seconds of some work without those of the samples that it takes meanwhile."""

    def now() -> float:
        return samples[0].clock() - sum(each.seconds for each in samples)

    begin = now()
    work()
    return now() - begin


def resident_bytes(field: str) -> int:
    """Return this process's memory in bytes: `VmRSS`, held now, or `VmHWM`, the most since the last reset (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def reset_peak() -> int:
    """Reset the peak of this process's memory, and return the bytes held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident_bytes("VmRSS")
