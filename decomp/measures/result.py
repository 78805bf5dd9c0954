"""What every measure gives back."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """One measure on one window. Each of the `targets` predicts the next token."""

    measure: str
    targets: range
    decomposition_length: int
    log2_prob: Float[Tensor, "T-1"]
    """Of the next token, in bits."""
    scores: Float[Tensor, "T-1 T"]
    """(target, source), in the measure's unit."""
    extra: dict[str, Float[Tensor, "T-1"]]
    """What is no token (`<bias>`, `<remainder>`)."""
