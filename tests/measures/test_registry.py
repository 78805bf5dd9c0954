"""The registry: what every measure refuses and says of itself."""

import pytest

from decomp.measures import SCORES, Request, Text, find_measure
from decomp.measures.functions import FUNCTIONS
from decomp.measures.registry import FUNCTION_NAMES, Measure
from tests.variants import make_pair, random_ids

NO_FUNCTION = Measure("weights", "x:y", "", "", "")


def test_functions_are_those_there_are():
    assert tuple(FUNCTIONS) == FUNCTION_NAMES
    for measure in SCORES.values():
        assert set(measure.functions) <= set(FUNCTION_NAMES)
        assert measure.default in measure.functions or not measure.functions


def test_unknown_measure_lists_the_known():
    with pytest.raises(ValueError, match="unknown measure 'magic': choose one of delta_lp"):
        find_measure("magic")


@pytest.mark.parametrize(
    ("measure", "function", "message"),
    [
        (SCORES["decomposed_logit"], "prob", "decomposed_logit takes .* not prob: no sum over sources .* delta_lp"),
        (SCORES["delta_lp"], "odds", "unknown function 'odds': choose one of logit, log2_prob"),
        (NO_FUNCTION, "logit", "weights explains no function of the logits"),
    ],
)
def test_function_that_is_not_taken(measure, function, message):
    with pytest.raises(ValueError, match=message):
        measure.function_of(Request(function=function))


@pytest.mark.parametrize(
    "measure", [m for m in SCORES.values() if "contrast_logit" in m.functions], ids=lambda m: m.name
)
def test_contrast_needs_foils(measure):
    _, model = make_pair("gpt2")
    with pytest.raises(ValueError, match="contrast_logit contrasts the next token with a foil, and there is none"):
        list(measure(model, [Text(random_ids(4), range(3))], Request(function="contrast_logit")))
