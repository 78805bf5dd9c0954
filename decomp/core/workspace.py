"""Buffers that are used again: fresh large tensors cost page faults, often more than the arithmetic in them."""

import ctypes
import math
import sys

from jaxtyping import Float
from torch import Tensor

from decomp.core.network import Norm


class Workspace:
    """A store of buffers by name, each made at its first use, enlarged when too small, overwritten at its next use."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        count = math.prod(shape)
        buffer = self.buffers.get(name)
        if buffer is None or len(buffer) < count:
            self.buffers.pop(name, None)
            buffer = self.buffers[name] = self.like.new_empty(count)
        return buffer[:count].view(shape)


def normalise_(
    rows: Float[Tensor, "targets sources D"], norm: Norm, inverse_std: Float[Tensor, " targets"]
) -> Float[Tensor, "targets sources D"]:
    """Apply the linear part of a frozen norm to rows in place, with the 1/σ of each target."""
    if norm.centred:
        rows.sub_(rows.mean(-1, keepdim=True))
    rows.mul_(inverse_std[:, None, None])
    return rows if norm.weight is None else rows.mul_(norm.weight)


def return_freed_memory() -> None:
    """Return freed memory to the system: the allocator of glibc keeps hundreds of MB after a forward pass."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def bytes_of(*tensors: Tensor | None) -> int:
    """Return the bytes of all given tensors together; None counts nothing."""
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)
