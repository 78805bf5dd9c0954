"""A window of a run, as it is planned."""

from typing import NamedTuple


class PlannedWindow(NamedTuple):
    """What a window will be, and what it is predicted to cost."""

    article: int
    number: int
    tokens: int
    targets: int
    pairs: int
    cost: int
    """Floating-point operations."""
