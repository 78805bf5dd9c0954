"""Entry points that installed packages offer."""

from functools import cache
from importlib import metadata


@cache
def entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    """Return what installed packages offer in a group; searched for once, as each search reads all of them."""
    return tuple(metadata.entry_points(group=group))
