"""The way from results to their pictures: `decomp.report` stands above them, and is imported when it is needed."""

from importlib import import_module
from typing import Any

VIEWS = "decomp.report.notebook"


def view(name: str, shown: object, *args: Any, **options: Any) -> Any:
    """Return the result of a function of `decomp.report.notebook`, called with the object shown."""
    return getattr(import_module(VIEWS), name)(shown, *args, **options)
