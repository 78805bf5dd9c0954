"""What the API pages make of docstrings: examples become blocks of code, also those that are indented."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?m)^>>> .*(?:\n(?!\n|\s*$).*)*")


def fenced(docstring: str) -> str:
    """Return a docstring in which every doctest is a fenced block."""
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", docstring)


class Doctests(griffe.Extension):
    """Fences the doctests of every object that the API pages show."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence those of one object."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
