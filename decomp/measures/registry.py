"""The registry of measures: what each is, its source in the literature, and the function that computes it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Literal

from decomp.io.installed import entry_points
from decomp.io.names import suggested
from decomp.measures.request import Request, ScoreFunction, Text

if TYPE_CHECKING:
    from decomp.core.model import Model
    from decomp.measures.result import Scores

PLAIN_FUNCTIONS = ("logit", "log2_prob", "prob")
"""The attributed functions of the next token alone."""
CONTRAST_FUNCTIONS = ("contrast_logit", "contrast_log2_prob", "contrast_prob")
"""The attributed functions that compare the next token with a foil."""
FUNCTION_NAMES = (*PLAIN_FUNCTIONS, *CONTRAST_FUNCTIONS)
"""The names of all attributed functions, which `decomp.measures.functions` computes."""
CHAINED = ("log2_prob", "contrast_log2_prob")
"""The attributed functions that add up over consecutive tokens, by the chain rule."""


@dataclass(frozen=True)
class Measure:
    """A measure: a name, what is said of it, and the function that computes it, imported at the first call."""

    name: str
    """The name, by which commands and tables know the measure."""
    implementation: str | ScoreFunction
    """The function that computes the measure, or its name `module:function` under `decomp.measures`."""
    line: str
    """A description in one line."""
    citation: str
    """The source in the literature."""
    unit: str
    """The unit of the scores."""
    functions: tuple[str, ...] = ()
    """The attributed functions that the measure takes; empty where it explains no number, as attention."""
    default: str | None = None
    """The attributed function of requests that name none; None for a measure that takes none."""
    advice: str = ""
    """The advice in the error for a function that the measure does not take."""
    together: Literal["sum", "targets", "sources"] | None = None
    """The scores of single tokens that add up to those of several tokens together.

    `sources`: those of sources; `targets`: those of predicted tokens; `sum`: those of both; None: neither.
    """
    takes_groups: bool = False
    """Whether the measure computes scores of groups of tokens itself; if not, scores of their tokens are summed."""

    def __call__(self, model: "Model", texts: Sequence[Text], request: Request) -> "Iterator[list[Scores]]":
        """Yield the scores of each text, in order, named `measure:function` where the function is not the default.

        ValueError for a function that the measure does not take, for a contrastive one without foils, for words or
        spans where they are not defined, and for scores that are not finite.
        """
        self.check_strongest(request)
        function = self.function_of(request)
        check_foils(function, all(text.foils is not None for text in texts))
        if any(text.has_groups for text in texts):
            self.check_sources(request)
        if request.span > 1 or any(text.words is not None for text in texts):
            self.check_together(request)
        from decomp.measures.result import finite  # imports torch
        from decomp.measures.units import in_units

        label = "" if function == self.default else f":{function}"
        units = {"sum_sources": not self.takes_groups, "additive": self.adds_up(request)}
        for text, scores in zip(texts, self.compute(model, texts, replace(request, function=function)), strict=True):
            named = [replace(s, measure=s.measure + label) for s in scores]
            yield [finite(in_units(s, text, request, **units), text.place) for s in named]

    def compute(self, model: "Model", texts: Sequence[Text], request: Request) -> "Iterator[list[Scores]]":
        """Yield scores of single tokens as targets, and as sources unless the measure takes groups itself."""
        from decomp.measures.units import tokens_reached  # imports torch

        if not self.takes_groups and request.decomposition_length is not None:
            length = max(tokens_reached(text, request) for text in texts)
            request = replace(request, decomposition_length=length)
        return self.score_function()(model, texts, request)

    def score_function(self) -> ScoreFunction:
        """Return the function that computes the measure, imported where it is given by its name."""
        if not isinstance(self.implementation, str):
            return self.implementation
        module, name = self.implementation.split(":")
        return getattr(import_module(f"decomp.measures.{module}"), name)

    def function_of(self, request: Request) -> str | None:
        """Return the attributed function of a request. ValueError for one that the measure does not take."""
        if request.function is None:
            return request.usual.get(self.name, self.default)
        if request.function in self.functions:
            return request.function
        check_function(request.function)
        if not self.functions:
            raise ValueError(f"{self.name} explains no function of the logits: ask for it without {request.function}")
        raise ValueError(
            f"{self.name} takes the functions {', '.join(self.functions)}, not {request.function}{self.advice}"
        )

    def adds_up(self, request: Request) -> bool:
        """Return whether the scores of several sources add up to the score of these sources taken together."""
        return self.together == "sum" and request.gradients.reduce == "sum"

    def check_sources(self, request: Request) -> None:
        """Raise ValueError where the measure is not defined for groups of tokens as sources."""
        if not (self.takes_groups or self.adds_up(request) or self.together == "sources"):
            raise ValueError(
                f"{self.name} of tokens does not add up to that of groups of tokens: score single tokens as sources"
            )

    def check_strongest(self, request: Request) -> None:
        """Raise ValueError where the strongest sources alone are asked of another measure than `delta_lp`."""
        if request.strongest is not None and self.name != "delta_lp":
            raise ValueError(f"--strongest (strongest=) is for delta_lp alone: score {self.name} without it")

    def check_together(self, request: Request) -> None:
        """Raise ValueError where the measure is not defined for predicted words and spans."""
        if not (self.together == "targets" or self.adds_up(request)):
            raise ValueError(f"{self.name} of tokens does not add up to that of words: score single tokens")
        if self.function_of(request) not in CHAINED:
            raise ValueError(f"{self.function_of(request)} of tokens does not add up to that of words: score log2_prob")
        if self.name == "delta_lp" and request.span > 1 and request.extra:
            raise ValueError(f"{self.name} is not defined for rows that are no token and spans: leave out one")

    def check_answer(self, request: Request) -> None:
        """Raise ValueError where the measure is not defined for segments, or its scores do not add up over tokens."""
        self.check_sources(request)
        if not (self.together == "targets" or self.adds_up(request)):
            raise ValueError(
                f"{self.name} of tokens does not add up to that of an answer: choose delta_lp or occlusion"
            )
        if (function := self.function_of(request)) != "log2_prob":
            raise ValueError(f"an answer is scored by its log2_prob, which adds up, not by {function}")


def check_function(name: str) -> None:
    """Raise ValueError, with the known names, for an unknown attributed function."""
    if name not in FUNCTION_NAMES:
        raise ValueError(f"unknown function {name!r}: {suggested(name, FUNCTION_NAMES)}")


def check_foils(function: str | None, given: bool) -> None:
    """Raise ValueError for a contrastive function where no foils are given."""
    if function is not None and function.startswith("contrast") and not given:
        raise ValueError(f"{function} contrasts the next token with a foil, and there is none: see decomp contrast")


MEASURES = (
    Measure(
        "delta_lp",
        "contributions:delta_lp",
        "change of the function when a source's contribution is taken away; of log2_prob, this is ΔLP",
        "Oh & Schuler 2023",
        "bits, or that of the function",
        FUNCTION_NAMES,
        "log2_prob",
        together="targets",
        takes_groups=True,
    ),
    Measure(
        "first_order",
        "contributions:first_order",
        "product of a source's contribution with the slope of the function: a quick screen for delta_lp, no estimate",
        "first order of Oh & Schuler 2023",
        "bits, or that of the function",
        FUNCTION_NAMES,
        "log2_prob",
        together="targets",
        takes_groups=True,
    ),
    Measure(
        "decomposed_logit",
        "contributions:decomposed_logit",
        "share of a source's contribution in the logit, or in a contrast of logits; rows sum to it",
        "Oh & Schuler 2023",
        "logit, or that of the function",
        ("logit", "contrast_logit", "contrast_log2_prob"),
        "logit",
        ": no sum over sources makes it; delta_lp takes sources away instead",
        takes_groups=True,
    ),
    Measure(
        "gradient_norm",
        "gradients:gradient_norm",
        "norm of the gradient with respect to a source's embedding",
        "Simonyan et al. 2014; Yin & Neubig 2022 (contrastive)",
        "bits, or that of the function, per unit of embedding",
        FUNCTION_NAMES,
        "log2_prob",
    ),
    Measure(
        "input_x_gradient",
        "gradients:input_x_gradient",
        "product of a source's embedding with the gradient",
        "Denil et al. 2014; Yin & Neubig 2022 (contrastive)",
        "bits, or that of the function",
        FUNCTION_NAMES,
        "log2_prob",
        together="sum",
    ),
    Measure(
        "integrated_gradients",
        "gradients:integrated_gradients",
        "gradient times embedding, integrated from a baseline; rows sum to the change of the function",
        "Sundararajan et al. 2017",
        "bits, or that of the function",
        FUNCTION_NAMES,
        "log2_prob",
        together="sum",
    ),
    Measure(
        "discretized_ig",
        "gradients:discretized_ig",
        "integrated gradients along a path through embeddings of real words",
        "Sanyal & Ren 2021",
        "bits, or that of the function",
        FUNCTION_NAMES,
        "log2_prob",
        together="sum",
    ),
    Measure(
        "attention",
        "attention:attention",
        "attention weights: --layers and --heads choose which",
        "Vaswani et al. 2017",
        "share of the attention",
        together="sources",
    ),
    Measure(
        "attention_rollout",
        "attention:attention_rollout",
        "attention weights with the residual, multiplied over layers",
        "Abnar & Zuidema 2020",
        "share",
        together="sources",
    ),
    Measure(
        "attention_norm",
        "attention_norm:attention_norm",
        "norm of the value vectors that attention carries",
        "Kobayashi et al. 2020",
        "L2 norm of a hidden vector",
    ),
    Measure(
        "attention_norm_resln",
        "attention_norm:attention_norm_resln",
        "norm of what reaches the target by attention, residual and LayerNorm",
        "Kobayashi et al. 2021",
        "L2 norm of a hidden vector",
    ),
    Measure(
        "value_zeroing",
        "value_zeroing:value_zeroing",
        "how much a layer's output turns when the source's value vectors are zero",
        "Mohebbi et al. 2023",
        "share",
    ),
    Measure(
        "value_zeroing_rollout",
        "value_zeroing:value_zeroing_rollout",
        "the same, multiplied over layers",
        "Mohebbi et al. 2023",
        "share",
    ),
    Measure(
        "alti_logit",
        "alti:alti_logit",
        "what the attention of all layers adds to the logit, tracked to its sources",
        "Ferrando et al. 2023",
        "logit, or that of the function",
        ("logit", "contrast_logit", "contrast_log2_prob"),
        "logit",
        together="sources",
    ),
    Measure(
        "occlusion",
        "occlusion:occlusion",
        "change of the function when the source is masked, or replaced",
        "Li et al. 2016; Yin & Neubig 2022",
        "bits, or that of the function",
        FUNCTION_NAMES,
        "log2_prob",
        together="targets",
        takes_groups=True,
    ),
)
SCORES = {measure.name: measure for measure in MEASURES}
"""All measures by name: those of the package, and those that have been registered."""
ENTRY_POINTS = "decomp.measures"
"""The group of entry points by which installed packages offer measures; importing one must register it."""


def find_measure(name: str) -> Measure:
    """Return the measure of a name, which is one of the package, registered, or offered by an installed package.

    ValueError, with the known names, for an unknown one, and for an installed package that does not register it.

        >>> find_measure("delta_lp").default
        'log2_prob'
    """
    if name not in SCORES:
        found = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
        if not found:
            raise ValueError(f"unknown measure {name!r}: {suggested(name, measure_names())}")
        load(found[0])
    return SCORES[name]


def measure_names() -> list[str]:
    """Return the names of all measures, those of installed packages last; no package is imported for that."""
    return [*SCORES, *sorted({point.name for point in entry_points(group=ENTRY_POINTS)} - SCORES.keys())]


def load(point: EntryPoint) -> None:
    """Import an entry point. ValueError where that fails, or does not register a measure of the entry point's name."""
    origin = f"the measure {point.name} of {point.value}"
    try:
        point.load()
    except Exception as error:
        raise ValueError(f"{origin} can't be imported: {type(error).__name__}: {error}") from error
    if point.name not in SCORES:
        raise ValueError(f"{origin} is not registered when that is imported: call decomp.register_measure there")


def add_measure(measure: Measure) -> None:
    """Add a measure to `SCORES`, by which commands and functions find it.

    ValueError for a name that is taken or can't be part of a table, for unknown functions, and for a default that is
    not one of its functions.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", measure.name):
        raise ValueError(f"{measure.name!r} can't name a measure: use a letter, then letters, digits, _ . -")
    if measure.name in SCORES:
        raise ValueError(f"there is a measure {measure.name} already: choose another name")
    if unknown := set(measure.functions) - set(FUNCTION_NAMES):
        raise ValueError(f"unknown functions {', '.join(sorted(unknown))}: choose among {', '.join(FUNCTION_NAMES)}")
    if (measure.default is None) == bool(measure.functions) or measure.default not in (None, *measure.functions):
        raise ValueError(f"the default function of {measure.name} must be one of its functions, not {measure.default}")
    SCORES[measure.name] = measure
