"""The measures and attributed functions that explain a contrast of target and foil; importing it takes no torch."""

from dataclasses import replace
from typing import Literal, get_args

from decomp.measures.registry import CONTRAST_FUNCTIONS, Measure, find_measure
from decomp.measures.request import Request

MultiToken = Literal["first", "sum"]
MULTI_TOKEN: tuple[str, ...] = get_args(MultiToken)
"""The two ways to treat a target and a foil of several tokens.

`first` compares the first tokens that differ, after those that target and foil share. `sum` compares
log2 P(target) and log2 P(foil), added up over all their tokens (teacher forcing).
"""

MEASURES = (
    "delta_lp",
    "decomposed_logit",
    "gradient_norm",
    "input_x_gradient",
    "integrated_gradients",
    "occlusion",
    "alti_logit",
)
"""The default measures. ΔLP of log-odds is the contrastive decomposition in bits, since normalisers cancel."""
CHAINING = ("sum", "targets")
"""The measures whose scores for single predicted tokens add up to those for several."""


def contrastive_request(measure: Measure, request: Request, multi_token: MultiToken) -> Request:
    """Return the request with the contrastive function by which a measure explains a contrast.

    It is the contrast of the measure's default function. ValueError for a function that is not contrastive, for a
    measure without such a function, and with `sum` for one whose scores do not add up over tokens.
    """
    if request.function not in (None, *CONTRAST_FUNCTIONS):
        raise ValueError(
            f"{request.function} is no contrast of target and foil: use {', '.join(CONTRAST_FUNCTIONS[:-1])} or "
            f"{CONTRAST_FUNCTIONS[-1]}"
        )
    if multi_token == "first":
        if measure.functions and not set(CONTRAST_FUNCTIONS) & set(measure.functions):
            raise ValueError(f"{measure.name} takes the functions {', '.join(measure.functions)}: none is a contrast")
        own = request.usual.get(measure.name, measure.default)
        return replace(request, function=request.function or (own and f"contrast_{own}"))
    if request.function not in (None, "contrast_log2_prob"):
        raise ValueError(
            f"teacher forcing adds up log2 probabilities, not {request.function.removeprefix('contrast_')}s: "
            "use --multi-token first"
        )
    if measure.together not in CHAINING or request.gradients.reduce == "norm" or "log2_prob" not in measure.functions:
        raise ValueError(
            f"{measure.name} can't be added up over the tokens of target and foil, "
            "only signed scores of log2 probabilities can: use --multi-token first"
        )
    return replace(request, function="log2_prob", own=True)


def default_measures(multi_token: MultiToken, has_groups: bool = False) -> tuple[str, ...]:
    """Return the default measures that are defined for `multi_token`, and where `has_groups` for groups of tokens."""
    known = {name: find_measure(name) for name in MEASURES}
    return tuple(
        name
        for name, m in known.items()
        if (multi_token == "first" or (m.together in CHAINING and "log2_prob" in m.functions))
        and not (has_groups and m.together is None and not m.takes_groups)
    )
