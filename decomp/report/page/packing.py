"""Numbers packed for the page: scores in steps of each target's strongest, arrays in one deflated, base64 text."""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

STEPS = {100_000: 32_767, 240_000: 127}
"""The number of steps of a target's strongest score, for pages of at most so many scores."""
FEWEST_STEPS = 63
"""The number of steps on larger pages: 2,000 tokens with 50 sources each and three measures stay below 500 kB."""
TYPES = {"int8": "i1", "int16": "<i2", "int32": "<i4", "float32": "<f4"}
"""Types of arrays that the browser has, too."""


@dataclass
class Packing:
    """Arrays in one sequence of bytes, each beginning where its type may begin."""

    content: bytearray = field(default_factory=bytearray)

    def add(self, values: Shaped[np.ndarray, "..."], kind: str) -> list[Any]:
        """Add an array, and return its type, first byte, and length, by which the page finds it."""
        self.content += b"\0" * (-len(self.content) % 8)
        place = [kind, len(self.content), int(np.size(values))]
        self.content += np.ascontiguousarray(values, dtype=TYPES[kind]).tobytes()
        return place


def in_steps(
    scores: Float[np.ndarray, "measures pairs"], starts: Int[np.ndarray, " targets+1"], most: int
) -> tuple[Int[np.ndarray, "measures pairs"], Float[np.ndarray, "measures targets"]]:
    """Return scores as whole steps, and the size of each target's step; −`most` − 1 stands for no score.

    A target's strongest score has `most` steps, so that no score is wrong by more than half a step.
    """
    known = ~np.isnan(scores)
    absolute = np.where(known, np.abs(scores), 0)
    each = np.repeat(strongest := strongest_of(absolute, starts), np.diff(starts), axis=1)
    whole = np.divide(absolute * most, each, out=np.zeros_like(absolute), where=each > 0).round()
    return np.where(known, np.copysign(whole, scores), -most - 1).astype(np.int64), strongest / most


def strongest_of(
    absolute: Float[np.ndarray, "measures pairs"], starts: Int[np.ndarray, " targets+1"]
) -> Float[np.ndarray, "measures targets"]:
    """Return each target's largest absolute score, 0 for one without scores."""
    counts = np.diff(starts)
    strongest = np.zeros((len(absolute), len(counts)))
    strongest[:, counts > 0] = np.maximum.reduceat(absolute, starts[:-1][counts > 0], axis=1)
    return strongest


def steps_for(count: int) -> int:
    """Return the number of steps of a target's strongest score on a page of so many scores."""
    return next((steps for most, steps in STEPS.items() if count <= most), FEWEST_STEPS)


def packed(about: Mapping[str, Any], arrays: Sequence[int] | bytes | bytearray) -> str:
    """Return JSON and arrays as one text, deflated, in base64: the length of the JSON text, that text, the arrays."""
    head = json.dumps(about, ensure_ascii=True, separators=(",", ":")).encode()
    head += b" " * (-(len(head) + 8) % 8)
    content = len(head).to_bytes(8, "little") + head + bytes(arrays)
    return base64.b64encode(zlib.compress(content, 9)).decode()
