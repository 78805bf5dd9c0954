"""Suggestions for names that people mistype."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggested(name: object, known: Iterable[str], ask: str = "choose one of") -> str:
    """Return, for an error message, the known name nearest to a mistyped one, else all known names."""
    names = [str(each) for each in known]
    near = get_close_matches(str(name), names, n=1)
    return f"did you mean {near[0]}?" if near else f"{ask} {', '.join(names)}"
