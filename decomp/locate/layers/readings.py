"""The predictions of a fact that layers are scored for: the first token that differs, or all tokens of its objects."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.locate.facts import Fact
from decomp.locate.layers.request import PLAIN, LayerRequest


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
