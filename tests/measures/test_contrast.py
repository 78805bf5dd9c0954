"""Contrast items asked about through the registry: exact sums, swapped foils, teacher forcing."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from decomp.corpus.contrast_items import Item, TokenisedItem
from decomp.measures import GradientOptions, Request, find_measure
from decomp.measures.contrast import (
    contrastive_scores,
    log2_odds,
    make_contrast,
    prompt_scores,
    scored,
)
from decomp.measures.contrast_request import contrastive_request, default_measures
from decomp.measures.registry import Measure
from decomp.tables.blocks import rows_of
from decomp.tables.columns import scores_block
from tests.variants import make_pair, random_ids

BOTH = ["opt", "opt-post-norm", "opt-gelu", "gpt2", "gpt2-relu"]
CONTRASTIVE, SUMMABLE = default_measures("first"), default_measures("sum")
QUICK = Request(gradients=GradientOptions(steps=3))
PROMPT = tuple(random_ids(7).tolist())


def item(target, foil, prompt=PROMPT, evidence=(2,)):
    return TokenisedItem(Item("", 3, "", "", "", "", ""), prompt, target, foil, evidence, True)


def ask(model, each, measure, multi_token="first", request=QUICK):
    found = find_measure(measure)
    request = contrastive_request(found, request, multi_token)
    contrast = make_contrast(each, multi_token)
    ((scores,),) = contrastive_scores(model, [contrast], found, request)
    return contrast, scores


def row(scores):
    return scores.scores[scores.targets.start]


def plain_log2_prob(plain, ids):
    logits = plain(input_ids=torch.tensor([ids])).logits[0, :-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(ids)[1:, None])[:, 0] / math.log(2)


def test_default_measures():
    assert set(CONTRASTIVE) - set(SUMMABLE) == {"decomposed_logit", "gradient_norm", "alti_logit"}


def test_first_token_that_differs():
    contrast = make_contrast(item((5, 6, 7, 8), (5, 6, 9)), "first")
    (text,) = contrast.texts
    assert text.ids.tolist() == [*PROMPT, 5, 6, 7]
    assert text.targets == range(8, 9)
    assert text.foils[8] == 9
    assert (contrast.target, contrast.foil, contrast.context) == ((7,), (9,), 9)
    assert make_contrast(item((5, 6), (5, 6, 9)), "first") is None
    assert make_contrast(item((5, 6), (5,)), "first") is None


def test_teacher_forced_texts():
    contrast = make_contrast(item((5, 6), (5,)), "sum")
    assert [text.ids.tolist() for text in contrast.texts] == [[*PROMPT, 5, 6], [*PROMPT, 5]]
    assert [text.targets for text in contrast.texts] == [range(6, 8), range(6, 7)]


@pytest.mark.parametrize("variant", BOTH)
@pytest.mark.parametrize("multi_token", ["first", "sum"])
def test_log2_odds_are_the_plain_models(variant, multi_token):
    plain, model = make_pair(variant)
    each = item((5, 6, 7), (5, 9))
    target, foil = (plain_log2_prob(plain, [*PROMPT, *word]) for word in ((5, 6, 7), (5, 9)))
    expected = target[7] - foil[7] if multi_token == "first" else target[6:].sum() - foil[6:].sum()
    assert_close(log2_odds(model, make_contrast(each, multi_token)), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", BOTH)
@pytest.mark.parametrize("measure", ["delta_lp", "decomposed_logit"])
def test_contrastive_decomposition_is_the_definition(variant, measure):
    """ΔLP too: in log-odds the normalisers cancel, so that taking a source away takes its share away."""
    _, model = make_pair(variant)
    _, scores = ask(model, item((5, 6), (5, 9)), measure, request=Request(extra=True))
    result = model.decompose(torch.tensor([*PROMPT, 5]))
    head = result.unembedding
    direction = head.weight[6] - head.weight[9]
    unit = math.log(2) if measure == "delta_lp" else 1
    assert_close(row(scores)[:8], result.contributions(7) @ direction / unit, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", BOTH)
def test_contrastive_decomposition_sums_to_the_logit_difference(variant):
    plain, model = make_pair(variant)
    for length in (None, 3):
        request = Request(length, extra=True, function="contrast_logit")
        _, scores = ask(model, item((5, 6), (5, 9)), "decomposed_logit", request=request)
        logits = plain(input_ids=torch.tensor([[*PROMPT, 5]])).logits[0, -1]
        total = row(scores).sum() + sum(values[7] for values in scores.extra.values())
        assert_close(total, logits[6] - logits[9], rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", ["opt", "gpt2"])
@pytest.mark.parametrize("measure", CONTRASTIVE)
def test_a_swapped_foil_turns_the_sign(variant, measure):
    _, model = make_pair(variant)
    one, other = (row(ask(model, item((a,), (b,)), measure)[1]) for a, b in ((6, 9), (9, 6)))
    assert one.abs().max() > 1e-3
    assert_close(one, other if measure == "gradient_norm" else -other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("measure", CONTRASTIVE)
def test_shared_tokens_belong_to_the_context(measure):
    _, model = make_pair("gpt2")
    _, scores = ask(model, item((5, 6), (5, 9)), measure)
    _, longer = ask(model, item((6,), (9,), (*PROMPT, 5)), measure)
    assert_close(row(scores), row(longer), rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", ["opt", "gpt2"])
@pytest.mark.parametrize("measure", SUMMABLE)
def test_of_one_token_the_sum_is_the_first(variant, measure):
    _, model = make_pair(variant)
    (_, first), (_, summed) = (ask(model, item((6,), (9,)), measure, mode) for mode in ("first", "sum"))
    assert summed.targets == first.targets
    assert_close(row(summed)[:7], row(first)[:7], rtol=0, atol=1e-9)
    assert_close(summed.extra["<continuation>"], torch.zeros_like(summed.log2_prob), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [None, 4])
def test_teacher_forced_delta_lp(length):
    plain, model = make_pair("opt")
    contrast, scores = ask(model, item((5, 6, 7), (5, 9)), "delta_lp", "sum", Request(length, extra=True))
    expected, own = torch.zeros(7, dtype=torch.float64), 0.0
    for sign, word in ((1, (5, 6, 7)), (-1, (5, 9))):
        result = model.decompose(torch.tensor([*PROMPT, *word]))
        dense, matrix = result.dense(), result.delta_lp()
        for target in range(6, 6 + len(word)):
            expected += sign * matrix[target, :7]
            logits = result.unembedding.logits(torch.stack([result.hidden[target]] * 2))
            logits[1] -= result.unembedding.weight @ dense[target, 7:].sum(0)
            plain_value, without = logits.log_softmax(-1)[:, word[target - 6]] / math.log(2)
            own += sign * (plain_value - without)
    # The length counts back from the first predicted token, for all tokens of the continuation.
    expected[: 7 - (length or 7)] = 0
    assert_close(row(scores)[:7], expected, rtol=0, atol=1e-10)
    assert_close(scores.extra["<continuation>"][6], own, rtol=0, atol=1e-10)
    assert_close(scores.log2_prob[6], plain_log2_prob(plain, [*PROMPT, 5, 6, 7])[6:].sum(), rtol=0, atol=1e-10)
    assert {"<bias>", "<remainder>", "<continuation>"} == set(scores.extra)
    table = list(rows_of(scores_block(scores, contrast.window(), ("x",) * 8)))
    assert len(table) == (length or 7) + 3
    assert [line[4] for line in table][-4:] == [5, None, None, None]
    assert table[0][:3] == (3, 0, 6)


@pytest.mark.parametrize("multi_token", ["first", "sum"])
def test_together_as_alone(multi_token):
    _, model = make_pair("gpt2")
    items = [item((5, 6), (5, 9)), item((8,), (7, 9), PROMPT[:4]), item((9,), (10,), (*PROMPT, *PROMPT))]
    contrasts = [make_contrast(each, multi_token) for each in items]
    names = CONTRASTIVE if multi_token == "first" else SUMMABLE
    requests = [(m, contrastive_request(m, QUICK, multi_token)) for m in map(find_measure, names)]
    together = list(scored(model, contrasts, requests, batch_size=3))
    alone = list(scored(model, contrasts, requests, batch_size=1))
    assert [len(scores) for _, scores in together] == [len(requests)] * 3
    for (_, one), (_, other) in zip(together, alone, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.measure == b.measure
            assert_close(row(a), row(b), rtol=0, atol=1e-9)


def test_prompt_scores_leave_the_beginning_out():
    _, model = make_pair("gpt2")
    contrast, scores = ask(model, item((5, 6), (5, 9)), "delta_lp")
    assert_close(torch.from_numpy(prompt_scores(contrast, scores)), row(scores)[1:7], rtol=0, atol=0)
    bare = replace(contrast, item=replace(contrast.item, has_bos=False))
    assert_close(torch.from_numpy(prompt_scores(bare, scores)), row(scores)[:7], rtol=0, atol=0)
    assert bare.window().position(7) == 7
    assert contrast.window().position(7) == 6


def test_attention_has_no_function_to_contrast():
    weights = Measure("weights", "x:y", "", "", "")
    assert contrastive_request(weights, Request(), "first").function is None


@pytest.mark.parametrize(
    ("measure", "request_", "multi_token", "message"),
    [
        (
            {},
            Request(function="prob"),
            "first",
            "prob is no contrast of target and foil: use contrast_logit, contrast_log2_prob or contr",
        ),
        ({}, Request(function="logit"), "sum", "logit is no contrast of target and foil"),
        ({}, Request(function="contrast_logit"), "sum", "teacher forcing adds up log2 probabilities, not logits"),
        ({}, Request(function="contrast_prob"), "sum", "teacher forcing adds up log2 probabilities, not probs"),
        ({"functions": ("logit",)}, Request(), "first", "m takes the functions logit: none is a contrast"),
        ({"functions": ("logit",)}, Request(), "sum", "m can't be added up over the tokens of target and foil"),
        ({"functions": ()}, Request(), "sum", "m can't be added up"),
        ({"name": "gradient_norm"}, Request(), "sum", "gradient_norm can't be added up"),
        ({}, Request(gradients=GradientOptions(reduce="norm")), "sum", "m can't be added up"),
    ],
)
def test_measures_that_make_no_sense(measure, request_, multi_token, message):
    known = Measure("m", "x:y", "", "", "", ("log2_prob", "contrast_logit", "contrast_log2_prob"), "log2_prob")
    with pytest.raises(ValueError, match=message):
        contrastive_request(replace(known, **measure), request_, multi_token)
