"""What is refused wherever the network is looked into: too little memory, numbers that are none, repeated options."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from decomp.io.amounts import format_bytes

MOST_TOGETHER = 16
"""Texts that are computed together at most, whatever the memory: what an interruption costs, and shards share."""


def rows_within(memory: int, row: int, what: str) -> int:
    """Return how many rows of so many bytes fit into the memory. ValueError, naming `what`, where not even one does."""
    if memory < row:
        raise ValueError(
            f"{what} needs about {format_bytes(row)} beside the model, more than the memory of "
            f"{format_bytes(memory)}: give more (--memory)"
        )
    return memory // row


def check_finite(values: Tensor, name: Callable[[tuple[int, ...]], str]) -> None:
    """Raise ValueError for a value that is NaN or infinite; `name` says where from its indices."""
    if torch.isfinite(values).all():
        return
    place = tuple((~torch.isfinite(values)).nonzero()[0].tolist())
    raise ValueError(
        f"{name(place)} is {values[place].item()}, no finite number: try float32 or float64, or other inputs"
    )


def check_numbers(name: str, values: Sequence[float]) -> None:
    """Raise ValueError, with the option's name, for a value that is not finite or is given twice."""
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, not {value}")
    check_once(name, values)


def check_once(name: str, values: Sequence[object]) -> None:
    """Raise ValueError, with the option's name, for a value that is given twice."""
    for number, value in enumerate(values):
        if value in values[:number]:
            raise ValueError(f"{name} {value} is given twice: give it once")
