"""Seconds, peaks of the machine, and peak memory."""

import resource
import time
from collections.abc import Callable

import torch


def seconds(work: Callable[[], object], repeat: int = 1) -> float:
    """The shortest of `repeat` runs."""
    best = float("inf")
    for _ in range(repeat):
        begin = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return best


def gemm_peak(dtype: torch.dtype = torch.float32, device: str = "cpu", size: int = 4096) -> float:
    """Floating-point operations a second of a large square matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    return 2 * size**3 / seconds(lambda: torch.mm(a, b, out=out), repeat=3)


def peak_memory() -> int:
    """Bytes this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
