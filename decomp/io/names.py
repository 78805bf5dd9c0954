"""Names that people mistype."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggested(name: object, known: Iterable[str], ask: str = "choose one of") -> str:
    """Return, for an error, the known name that is nearest to a mistyped one, else all that are known."""
    names = [str(each) for each in known]
    near = get_close_matches(str(name), names, n=1)
    return f"did you mean {near[0]}?" if near else f"{ask} {', '.join(names)}"
