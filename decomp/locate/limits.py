"""Checks shared by layers, neurons and edges: enough memory, finite numbers, no repeated options; without torch."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from decomp.io.amounts import format_bytes

if TYPE_CHECKING:
    from torch import Tensor

MOST_TOGETHER = 16
"""The largest number of texts computed together; after each such batch, results are kept and work can be shared."""


def rows_within(memory: int, row: int, what: str) -> int:
    """Return how many rows of `row` bytes fit into the memory. ValueError, which names `what`, where not one does."""
    if memory < row:
        raise ValueError(
            f"{what} needs about {format_bytes(row)} beside the model, more than the memory of "
            f"{format_bytes(memory)}: give more (--memory)"
        )
    return memory // row


def check_finite(values: "Tensor", name: Callable[[tuple[int, ...]], str]) -> None:
    """Raise ValueError for a value that is NaN or infinite; `name` names it, given its indices."""
    if values.isfinite().all():
        return
    place = tuple((~values.isfinite()).nonzero()[0].tolist())
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
