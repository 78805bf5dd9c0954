"""The predictions of a fact that layers are scored for: the first token that differs, or all tokens of its objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.io.names import suggested
from decomp.locate.facts import Fact
from decomp.locate.limits import check_once
from decomp.measures.functions import find_function

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
        find_function(self.function)
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


@dataclass(frozen=True, eq=False)
class Reading:
    """A text whose last position predicts a token of an object; functions of facts are signed sums over such texts."""

    ids: Int[Tensor, " T"]
    """The token ids of the text."""
    token: int
    """The id of the token that is predicted."""
    foil: int
    """The id of the token that it is contrasted with."""
    sign: int = 1
    """The sign of this text's part in the function: −1 for the false object in a difference."""
    true: bool = True
    """Whether the tokens after the prompt are those of the true object."""
    place: str = ""
    """The file and line of the fact, for messages of errors."""

    @property
    def last(self) -> int:
        """Return the last position, which predicts the token."""
        return len(self.ids) - 1


def readings_of(fact: Fact, request: LayerRequest) -> list[Reading]:
    """Return the texts that a fact's function sums over: the prompt, or with `sum` one for each token of the objects.

    That sum is Σ_j f(true_j | prompt, true_<j); for contrastive functions, the same of the false object is subtracted.
    """
    if request.multi_token == "first":
        return [Reading(fact.ids, fact.token, fact.foil, place=fact.place)]
    sides = [(1, fact.true), (-1, fact.false)] if request.function in PLAIN else [(1, fact.true)]
    return [
        Reading(
            torch.cat([fact.ids, fact.ids.new_tensor(side.ids[:j])]), token, token, sign, side is fact.true, fact.place
        )
        for sign, side in sides
        for j, token in enumerate(side.ids)
    ]


def combined(
    fact: Fact, readings: Sequence[Reading], parts: Sequence[Float[Tensor, "L _ D"]]
) -> Float[Tensor, "L T D"]:
    """Return the signed sum of the parts over readings, for each token of the prompt, true object and false object."""
    prompt = len(fact.ids)
    rows = [one.sign * part[:, :prompt] for one, part in zip(readings, parts, strict=True)]
    result = [torch.stack(rows).sum(0)]
    for true in (True, False):
        tails = [one.sign * part[:, prompt:] for one, part in zip(readings, parts, strict=True) if one.true == true]
        if tails and tails[-1].shape[1]:
            total = torch.zeros_like(tails[-1])
            for tail in tails:
                total[:, : tail.shape[1]] += tail
            result.append(total)
    return torch.cat(result, 1)


def reduced(products: Float[Tensor, "L T D"], request: LayerRequest) -> Float[Tensor, "L T"]:
    """Return gradient ⊙ activation reduced over the hidden width, as the request says."""
    if request.reduce == "norm":
        return products.norm(1 if request.norm == "l1" else 2, -1)
    total = products.sum(-1)
    return total.abs() if request.reduce == "absolute" else total


def tokens_of(fact: Fact, request: LayerRequest) -> list[tuple[int, str, str]]:
    """Return position, token and role of each token in the rows of `combined`; the position is −1 for the BOS token."""
    first = -int(fact.has_bos)
    tokens = [(first + i, token, role) for i, (token, role) in enumerate(zip(fact.tokens, fact.roles, strict=True))]
    if request.multi_token == "first":
        return tokens
    sides = [("true_object", fact.true), ("false_object", fact.false)][: 2 if request.function in PLAIN else 1]
    after = first + len(fact.ids)
    return tokens + [(after + j, token, role) for role, side in sides for j, token in enumerate(side.tokens[:-1])]
