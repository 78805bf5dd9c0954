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


def gemm_peak(dtype: torch.dtype = torch.float32, device: str = "cpu", size: int = 4096) -> float:
    """Return the floating-point operations a second of a large square matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    return 2 * size**3 / seconds(lambda: torch.mm(a, b, out=out), repeat=3)


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


def resident_bytes(field: str) -> int:
    """Return this process's memory in bytes: `VmRSS`, held now, or `VmHWM`, the most since the last reset (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def reset_peak() -> int:
    """Reset the peak of this process's memory, and return the bytes held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident_bytes("VmRSS")
