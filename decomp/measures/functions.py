"""Attributed functions: the numbers of a prediction that measures explain; logarithms are in bits."""

import math
from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

from decomp.measures.registry import check_function

AttributedFunction = Callable[
    [Float[Tensor, "*batch V"], Int[Tensor, "*batch"], Int[Tensor, "*batch"] | None], Float[Tensor, "*batch"]
]
"""A function of logits, predicted token and foil (None unless contrastive), which returns one number a prediction."""


NO_FOIL = "a contrastive function needs a foil beside the predicted token: give one"


def pick(values: Float[Tensor, "*batch V"], token: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return, of values for the whole vocabulary, the one of each prediction's token."""
    return values.gather(-1, token[..., None])[..., 0]


def logit(
    logits: Float[Tensor, "*batch V"], token: Int[Tensor, "*batch"], foil: Int[Tensor, "*batch"] | None = None
) -> Float[Tensor, "*batch"]:
    """Return the logit z[y] of the predicted token y."""
    return pick(logits, token)


def log2_prob(
    logits: Float[Tensor, "*batch V"], token: Int[Tensor, "*batch"], foil: Int[Tensor, "*batch"] | None = None
) -> Float[Tensor, "*batch"]:
    """Return the log2 probability of the predicted token y, log2 softmax(z)[y], in bits."""
    return (pick(logits, token) - logits.logsumexp(-1)) / math.log(2)


def prob(
    logits: Float[Tensor, "*batch V"], token: Int[Tensor, "*batch"], foil: Int[Tensor, "*batch"] | None = None
) -> Float[Tensor, "*batch"]:
    """Return the probability softmax(z)[y] of the predicted token y."""
    return (pick(logits, token) - logits.logsumexp(-1)).exp()


def contrasted(
    function: AttributedFunction,
    logits: Float[Tensor, "*batch V"],
    token: Int[Tensor, "*batch"],
    foil: Int[Tensor, "*batch"] | None,
) -> Float[Tensor, "*batch"]:
    """Return a function of the predicted token minus the same of the foil. ValueError without a foil."""
    if foil is None:
        raise ValueError(NO_FOIL)
    return function(logits, token, None) - function(logits, foil, None)


def contrast_logit(
    logits: Float[Tensor, "*batch V"], token: Int[Tensor, "*batch"], foil: Int[Tensor, "*batch"] | None = None
) -> Float[Tensor, "*batch"]:
    """Return the difference of logits z[y] − z[foil] (Yin & Neubig 2022). ValueError without a foil."""
    return contrasted(logit, logits, token, foil)


def contrast_log2_prob(
    logits: Float[Tensor, "*batch V"], token: Int[Tensor, "*batch"], foil: Int[Tensor, "*batch"] | None = None
) -> Float[Tensor, "*batch"]:
    """Return the log-odds log2 softmax(z)[y] − log2 softmax(z)[foil], in bits. ValueError without a foil."""
    return contrast_logit(logits, token, foil) / math.log(2)


def contrast_prob(
    logits: Float[Tensor, "*batch V"], token: Int[Tensor, "*batch"], foil: Int[Tensor, "*batch"] | None = None
) -> Float[Tensor, "*batch"]:
    """Return the difference of probabilities softmax(z)[y] − softmax(z)[foil]. ValueError without a foil."""
    return contrasted(prob, logits, token, foil)


FUNCTIONS: dict[str, AttributedFunction] = {
    "logit": logit,
    "log2_prob": log2_prob,
    "prob": prob,
    "contrast_logit": contrast_logit,
    "contrast_log2_prob": contrast_log2_prob,
    "contrast_prob": contrast_prob,
}


def find_function(name: str) -> AttributedFunction:
    """Return the attributed function of a name. ValueError, with the known names, for an unknown one.

        >>> import torch
    >>> logits, token, foil = torch.tensor([[2.0, 1.0, 1.0]]), torch.tensor([0]), torch.tensor([1])
        >>> find_function("contrast_logit")(logits, token, foil)
        tensor([1.])
    """
    check_function(name)
    return FUNCTIONS[name]
