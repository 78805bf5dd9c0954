"""The options by which neurons are scored and found, which are checked without torch."""

from dataclasses import dataclass
from typing import Literal

from decomp.locate.quadrature import QUADRATURES
from decomp.measures.quadrature import check_steps

NEURONS = ("activation", "pre-activation")
"""The two kinds of neurons: the inputs of an MLP's last map, or those of its activation function."""
FUNCTION_NAMES = ("log2_prob", "prob", "logit")
"""The names of the attributed functions of a whole target, which `decomp.locate.neurons.completions` computes."""


@dataclass(frozen=True)
class NeuronRequest:
    """The options by which neurons are scored and found."""

    function: str = "log2_prob"
    """The attributed function of the whole target: log2 P(Y | X) in bits, P(Y | X), or the sum of its logits."""
    contrast: bool = False
    """Whether the same function of the foil is subtracted."""
    neurons: Literal["activation", "pre-activation"] = "activation"
    """The values that are scaled: the inputs of the MLP's last map, or those of its activation function."""
    tokens: Literal["together", "separately"] = "together"
    """The positions that are scaled together.

    `together`: all positions that predict Y, for the function of all of Y. `separately`: one position at a time, for
    the function of the token predicted there; the scores are then added up.
    """
    steps: int = 20
    """The number of steps of the rule of integration."""
    quadrature: str = "riemann"
    """The rule of integration, a name in `decomp.locate.quadrature`."""
    threshold: float = 0.2
    """The fraction of an item's largest score that a neuron needs to be found."""
    share: float = 0.7
    """The fraction of a fact's prompts that must find a neuron."""
    memory: int = 2**30
    """The bytes of memory for all that is held beside the model."""

    def check(self) -> None:
        """Raise ValueError for unknown names, and for numbers out of range."""
        for name, value, known in (
            ("function", self.function, FUNCTION_NAMES),
            ("kind of neurons", self.neurons, NEURONS),
            ("way to scale tokens", self.tokens, ("together", "separately")),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
        for name, number in (("threshold", self.threshold), ("share", self.share)):
            if not 0 <= number <= 1:
                raise ValueError(f"the {name} must be from 0 to 1, not {number}")
        check_steps(self.quadrature, self.steps, QUADRATURES)
