"""The options by which layers are scored, which are checked without torch."""

from dataclasses import dataclass
from typing import Literal

from decomp.io.names import suggested
from decomp.locate.limits import check_once
from decomp.measures.registry import check_function

MEASURES = ("gradient_x_activation", "direct")
COMPONENTS = ("mlp", "attention", "residual")
LINEAR_FUNCTIONS = ("logit", "contrast_logit", "contrast_log2_prob")
"""The attributed functions that are linear in the logits, so that shares add up to them."""
PLAIN = {f"contrast_{name}": name for name in ("logit", "log2_prob", "prob")}
"""For each contrastive function, the plain one that is summed over the tokens of either object."""
REDUCTIONS = ("sum", "absolute", "norm")


@dataclass(frozen=True)
class LayerRequest:
    """The options by which layers are scored: measures, attributed function, components, reductions."""

    measures: tuple[str, ...] = ("gradient_x_activation",)
    """The measures: `gradient_x_activation`, `direct`."""
    components: tuple[str, ...] = ("mlp",)
    """The components whose outputs are scored by gradients: `mlp`, `attention`, `residual`."""
    function: str = "contrast_logit"
    """The attributed function, such as `contrast_logit`: the true object against the false one."""
    multi_token: Literal["first", "sum"] = "first"
    """The treatment of objects of several tokens: the first that differs, or the sum over all from there on.

    The sum is computed by teacher forcing.
    """
    reduce: Literal["sum", "absolute", "norm"] = "sum"
    """The reduction of gradient ⊙ activation over the hidden width: signed sum, its absolute value, or the norm."""
    norm: Literal["l1", "l2"] = "l2"
    """The norm, for the reduction `norm`."""
    memory: int = 2**30
    """The bytes of memory for all that is held beside the model."""

    def check(self) -> None:
        """Raise ValueError for unknown or repeated names, and for options that exclude each other."""
        for what, names, known in (("measure", self.measures, MEASURES), ("component", self.components, COMPONENTS)):
            check_once(f"--{what}", names)
            if unknown := [name for name in names if name not in known]:
                raise ValueError(f"unknown {what} {unknown[0]!r}: {suggested(unknown[0], known)}")
        for name, value, choices in (
            ("reduction", self.reduce, REDUCTIONS),
            ("norm", self.norm, ("l1", "l2")),
            ("multi_token", self.multi_token, ("first", "sum")),
        ):
            if value not in choices:
                raise ValueError(f"unknown {name} {value!r}: {suggested(value, choices)}")
        check_function(self.function)
        if "direct" in self.measures:
            check_linear(self.function_of_reading)
        if self.reduce != "sum" and "gradient_x_activation" not in self.measures:
            raise ValueError(
                f"direct shares are numbers already, {self.reduce} is of gradient_x_activation: leave it out"
            )

    @property
    def function_of_reading(self) -> str:
        """Return the name of the attributed function of a single predicted token."""
        return PLAIN.get(self.function, self.function) if self.multi_token == "sum" else self.function


def check_linear(function: str) -> None:
    """Raise ValueError for an attributed function that is not linear in the logits."""
    if function not in LINEAR_FUNCTIONS:
        raise ValueError(
            f"direct shares add up to a function that is linear in the logits, {function} is not: "
            f"choose one of {', '.join(LINEAR_FUNCTIONS)}"
        )
