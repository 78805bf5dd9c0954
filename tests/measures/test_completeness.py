"""Nothing lost, nothing counted twice: every measure, unit, span and decomposition length, alone and contrasted."""

from functools import cache

import pytest
import torch
from torch.testing import assert_close

from decomp.corpus.contrast_items import Item, TokenisedItem
from decomp.measures import SCORES, GradientOptions, Request, Text
from decomp.measures.contrast import contrastive_scores, make_contrast
from decomp.measures.contrast_request import contrastive_request, default_measures
from tests.variants import make_pair, random_ids

WORDS = [0, 1, 2, 2, 3, 4, 4, 4, 5, 6, 6, 7]
IDS = random_ids(len(WORDS))
WORDS_OF = {"token": None, "word": WORDS}
COMPLETE = {"decomposed_logit", "integrated_gradients", "discretized_ig", "alti_logit"}
"""Rows of a target, with those that are no token, sum to the function or its change."""
ADDITIVE = {"input_x_gradient", "integrated_gradients", "discretized_ig"}
QUICK = GradientOptions(steps=2, neighbors=4)
EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(scope="module")
def model():
    return make_pair("gpt2", n_layer=1)[1]


def scored(model, name, words=None, **asked):
    text = Text(IDS, range(len(IDS) - 1), words=None if words is None else torch.tensor(words))
    ((result,),) = SCORES[name](model, [text], Request(gradients=QUICK, **asked))
    return result


@pytest.fixture(scope="module")
def every_source(model):
    """What is scored where all sources are kept, once for all lengths."""
    return cache(lambda name, unit, span, extra: scored(model, name, WORDS_OF[unit], span=span, extra=extra))


def total(result, targets=None):
    """What all rows of each target sum to, as the table has them."""
    sums = []
    for target in targets or result.targets:
        kept = slice(max(0, target - result.decomposition_length + 1), target + 1)
        sums.append(result.scores[target, kept].sum() + sum(values[target] for values in result.extra.values()))
    return torch.stack(sums)


def takes(name, unit, span):
    alone = unit == "token" and span == 1
    return alone or SCORES[name].together == "targets" or name in ADDITIVE


GRID = [
    (name, unit, span, length)
    for name in SCORES
    for unit in ("token", "word")
    for span in (1, 2)
    for length in (1, 3, 100)
    if takes(name, unit, span)
]


@pytest.mark.parametrize(("name", "unit", "span", "length"), GRID)
def test_a_length_changes_nothing_that_is_kept(model, every_source, name, unit, span, length):
    words = WORDS_OF[unit]
    units = len(IDS) if words is None else WORDS[-1] + 1
    extra = not SCORES[name].takes_groups or span == 1
    whole = every_source(name, unit, span, extra)
    some = scored(model, name, words, span=span, decomposition_length=length, extra=extra)
    assert whole.targets == some.targets == range(units - span)
    assert (whole.decomposition_length, some.decomposition_length) == (units, min(length, units))
    for target in some.targets:
        kept = slice(max(0, target - length + 1), target + 1)
        assert_close(some.scores[target, kept], whole.scores[target, kept], **EXACT)
    if name in COMPLETE:
        assert_close(total(some), total(whole), **EXACT)
        assert ("<remainder>" in some.extra) == (length < units)
        assert "<remainder>" not in whole.extra


@pytest.mark.parametrize("unit", ["token", "word"])
@pytest.mark.parametrize("span", [1, 2])
@pytest.mark.parametrize("name", sorted(ADDITIVE & COMPLETE))
def test_units_are_the_sums_of_their_tokens(model, name, unit, span):
    words = WORDS if unit == "word" else list(range(len(IDS)))
    tokens = total(scored(model, name))
    result = scored(model, name, words, span=span, decomposition_length=2)
    for target, summed in zip(result.targets, total(result), strict=True):
        predicted = [t for t in range(len(IDS) - 1) if target < words[t + 1] <= target + span]
        assert_close(summed, tokens[predicted].sum(), **EXACT)


PROMPT, TARGET, FOIL = tuple(IDS[:7].tolist()), (5, 6, 7), (5, 9)
CONTRASTS = [(m, name) for m in ("first", "sum") for name in default_measures(m)] + [("sum", "discretized_ig")]


@pytest.mark.parametrize("length", [2, 7, 100])
@pytest.mark.parametrize(("multi_token", "name"), CONTRASTS)
def test_a_length_of_a_contrast(model, multi_token, name, length):
    """It counts back from the first predicted token, for all tokens of the continuation."""
    contrast = make_contrast(
        TokenisedItem(Item("", 0, "", "", "", "", ""), PROMPT, TARGET, FOIL, (2,), True), multi_token
    )
    results = []
    for w in (None, length):
        request = contrastive_request(SCORES[name], Request(w, extra=True, gradients=QUICK), multi_token)
        ((result,),) = contrastive_scores(model, [contrast], SCORES[name], request)
        results.append(result)
    whole, some = results
    (target,) = whole.targets
    kept = slice(max(0, target - length + 1), target + 1)
    assert some.decomposition_length == min(length, whole.decomposition_length)
    assert_close(some.scores[target, kept], whole.scores[target, kept], **EXACT)
    if name in COMPLETE:
        assert_close(total(some), total(whole), **EXACT)
    if "<remainder>" in some.extra:
        older = some.extra["<remainder>"][target]
        assert (older.abs() > 1e-9) == (length < contrast.context)
    if multi_token == "sum":
        assert_close(some.extra["<continuation>"], whole.extra["<continuation>"], **EXACT)


@pytest.mark.parametrize("name", default_measures("sum"))
def test_a_remainder_is_on_request_and_never_made_up(model, name):
    """Without rows that are no token there is none, and of single effects (occlusion) no sum is one."""
    contrast = make_contrast(TokenisedItem(Item("", 0, "", "", "", "", ""), PROMPT, TARGET, FOIL, (2,), True), "sum")
    for extra in (False, True):
        request = contrastive_request(SCORES[name], Request(2, extra=extra, gradients=QUICK), "sum")
        ((found,),) = contrastive_scores(model, [contrast], SCORES[name], request)
        own = name in COMPLETE  # rows of its own, asked for or not
        assert ("<remainder>" in found.extra) == (own or (extra and name != "occlusion"))
        if "<remainder>" in found.extra:
            assert found.extra["<remainder>"][found.targets.start].abs() > 1e-3


@pytest.mark.parametrize("unit", ["token", "word"])
def test_additive_scores_have_rows_that_are_no_token_on_request(model, unit):
    words = WORDS if unit == "word" else None
    whole, some = (scored(model, "input_x_gradient", words, decomposition_length=w, extra=True) for w in (None, 3))
    assert set(some.extra) == {"<remainder>"} | ({"<own>"} if words else set())
    assert_close(total(some), total(whole), **EXACT)
    assert scored(model, "input_x_gradient", words, decomposition_length=3).extra == {}
