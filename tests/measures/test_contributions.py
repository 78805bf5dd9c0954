"""ΔLP and additive shares under every attributed function, against their definitions on whole decompositions."""

import math
from itertools import product

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from decomp.measures import SCORES, Request, Text, contributions
from decomp.measures.functions import FUNCTIONS
from tests.variants import FAMILIES, VOCAB, make_pair, random_ids

VARIANTS = ["opt", "opt-post-norm", "gpt2", "gpt2-relu"]


def text_of(length, first=0):
    foils = torch.randint(4, VOCAB, (length - 1,), generator=torch.Generator().manual_seed(3))
    return Text(random_ids(length), range(first, length - 1), foils)


def with_head_bias(model):
    torch.manual_seed(0)
    head = nn.Linear(model.lm_head.in_features, VOCAB, dtype=torch.float64)
    head.weight = model.lm_head.weight
    model.lm_head = head
    return model


def one(name, model, text, **request):
    ((scores,),) = SCORES[name](model, [text], Request(**request))
    return scores


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("variant", [*VARIANTS, "gemma2"])
def test_delta_lp_of_every_function(variant, function):
    model = with_head_bias(make_pair(variant)[1])
    assert (model.unembedding().softcap is not None) == (variant == "gemma2")
    text = text_of(9, first=2)
    result = model.decompose(text.ids)
    n, unembedding = result.dense(), model.unembedding()
    scores = one("delta_lp", model, text, function=function, extra=True)

    def value(i, vector):
        logits = unembedding.logits((result.hidden[i] - vector)[None])
        return FUNCTIONS[function](logits, text.ids[i + 1 : i + 2], text.foils[i : i + 1])[0]

    for i in text.targets:
        plain = value(i, torch.zeros_like(n[0, 0]))
        expected = torch.stack([plain - value(i, n[i, k]) for k in range(len(text.ids))])
        assert_close(scores.scores[i], expected, rtol=0, atol=1e-10)
        assert_close(scores.extra["<bias>"][i], plain - value(i, result.bias[i]), rtol=0, atol=1e-10)
    assert scores.scores[:2].count_nonzero() == 0
    assert scores.measure == ("delta_lp" if function == "log2_prob" else f"delta_lp:{function}")


@pytest.mark.parametrize("kept", [None, 3])
@pytest.mark.parametrize("function", ["logit", "contrast_logit", "contrast_log2_prob"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_decomposed_logit_sums_to_the_function(variant, function, kept):
    plain, model = map(with_head_bias, make_pair(variant))
    text = text_of(9)
    scores = one("decomposed_logit", model, text, function=function, decomposition_length=kept)
    rows = ["<bias>", "<remainder>", "<head_bias>"] if kept else ["<bias>", "<head_bias>"]
    assert list(scores.extra) == rows
    total = scores.scores.sum(1) + sum(scores.extra.values())
    with torch.no_grad():
        logits = plain(text.ids[None]).logits[0, :-1]
    assert_close(total, FUNCTIONS[function](logits, text.ids[1:], text.foils), rtol=0, atol=1e-10)
    if function == "logit":
        result = model.decompose(text.ids, decomposition_length=kept)
        expected = torch.einsum("ike,ie->ik", result.dense()[:-1], model.lm_head.weight[text.ids[1:]])
        assert_close(scores.scores, expected.detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", ["tangent", "secant"])
@pytest.mark.parametrize(
    "variant", ["opt-pre-norm-projected", *(n.replace("gemma2", "gemma2-uncapped") for n in FAMILIES)]
)
def test_what_is_pulled_back_sums_to_the_logit(variant, rule):
    """The bias is read on the way, not what is missing from the logit."""
    plain, model = map(with_head_bias, make_pair(variant))
    text = Text(random_ids(11), range(8, 9))
    assert contributions.pull_pays(text, Request())
    scores = one("decomposed_logit", model, text, activation_rule=rule)
    with torch.no_grad():
        logits = plain(text.ids[None]).logits[0, 8]
    total = scores.scores.sum(1) + sum(scores.extra.values())
    assert_close(total[8], logits[text.ids[9]], rtol=0, atol=1e-10)
    assert_close(scores.log2_prob[8], logits.log_softmax(0)[text.ids[9]] / math.log(2), rtol=0, atol=1e-10)


@pytest.mark.parametrize("function", ["logit", "contrast_logit", "contrast_log2_prob"])
@pytest.mark.parametrize("measure", ["decomposed_logit", "alti_logit"])
def test_shares_of_soft_capped_logits_are_refused(measure, function):
    model = make_pair("gemma2")[1]
    with pytest.raises(ValueError, match=r"needs logits that are linear in the hidden state, .* soft-capped at 3"):
        one(measure, model, text_of(5), function=function)


def test_no_head_bias_no_row():
    scores = one("decomposed_logit", make_pair("gpt2")[1], text_of(5))
    assert list(scores.extra) == ["<bias>"]


@pytest.mark.parametrize("name", ["delta_lp", "decomposed_logit"])
def test_texts_together_are_texts_alone(name):
    model = make_pair("opt-post-norm")[1]
    texts = [text_of(9), text_of(4), text_of(12, first=5)]
    together = [scores for (scores,) in SCORES[name](model, texts, Request(extra=True))]
    for text, scores in zip(texts, together, strict=True):
        alone = one(name, model, text, extra=True)
        assert_close(scores.scores, alone.scores, rtol=0, atol=1e-10)
        assert_close(scores.extra["<bias>"], alone.extra["<bias>"], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("variant", "kept", "function"),
    [
        *(("opt-pre-norm-projected", *one) for one in product([None, 3], ["contrast_logit", "contrast_log2_prob"])),
        *((name.replace("gemma2", "gemma2-uncapped"), None, "contrast_logit") for name in FAMILIES),
        *((name.replace("gemma2", "gemma2-uncapped"), 3, "logit") for name in FAMILIES),
    ],
)
def test_pulled_back_is_carried_forward(variant, kept, function, monkeypatch):
    _, model = make_pair(variant)
    ids = random_ids(11)
    foils = None if function == "logit" else torch.randint(VOCAB, (10,))
    text = Text(ids, range(6, 9), foils)
    request = Request(function=function, decomposition_length=kept, extra=True)
    results = []
    for advantage in (0, 10**9):
        monkeypatch.setattr(contributions, "PULL_ADVANTAGE", advantage)
        names = ("decomposed_logit",) if function == "logit" else ("decomposed_logit", "delta_lp")
        results.append([SCORES[name](model, [text], request) for name in names])
    for pulled, carried in zip(*results, strict=True):
        ((one,),), ((other,),) = pulled, carried
        place = slice(text.targets.start, text.targets.stop)
        assert_close(one.scores[place], other.scores[place], rtol=1e-11, atol=1e-11)
        assert one.scores[place].abs().max() > 1e-2
        assert one.extra.keys() >= other.extra.keys() - {"<remainder>"}
        for name in one.extra:
            assert_close(one.extra[name][place], other.extra[name][place], rtol=1e-11, atol=1e-11)


def test_changes_of_soft_capped_logits_are_never_pulled():
    _, model = make_pair("gemma2")
    ids, request = random_ids(33), Request(function="contrast_logit")
    last = range(len(ids) - 2, len(ids) - 1)
    assert contributions.pull_pays(Text(ids, last), request)
    foils = random_ids(len(ids), seed=5)[1:]
    texts = [Text(ids, targets, foils) for targets in (last, range(len(ids) - 1))]
    (few,), (all_targets,) = (next(iter(SCORES["delta_lp"](model, [text], request))) for text in texts)
    assert_close(few.scores[last.start], all_targets.scores[last.start], rtol=1e-11, atol=1e-11)
    with pytest.raises(ValueError, match="soft-capped at 3"):
        list(SCORES["decomposed_logit"](model, [Text(ids, last, foils)], request))


def test_few_targets_are_pulled_and_many_carried():
    ids = torch.arange(100)
    assert contributions.pull_pays(Text(ids, range(98, 99)), Request())
    assert not contributions.pull_pays(Text(ids, range(99)), Request())
    assert not contributions.pull_pays(Text(ids, range(98, 99)), Request(decomposition_length=1))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("variant", ["opt-post-norm", "gemma2"])
def test_first_order_is_the_slope_along_each_contribution(variant, function):
    model = with_head_bias(make_pair(variant)[1])
    text = text_of(9, first=2)
    result = model.decompose(text.ids)
    scores = one("first_order", model, text, function=function, extra=True)
    for i in text.targets:
        hidden = result.hidden[i].clone().requires_grad_()
        logits = model.unembedding().logits(hidden[None])
        FUNCTIONS[function](logits, text.ids[i + 1 : i + 2], text.foils[i : i + 1]).sum().backward()
        assert_close(scores.scores[i], result.dense()[i] @ hidden.grad, rtol=0, atol=1e-10)
        assert_close(scores.extra["<bias>"][i], result.bias[i] @ hidden.grad, rtol=0, atol=1e-10)
    assert scores.measure == ("first_order" if function == "log2_prob" else f"first_order:{function}")


@pytest.mark.parametrize("kept", [None, 3])
@pytest.mark.parametrize("span", [1, 3])
@pytest.mark.parametrize("variant", ["opt-post-norm", "llama", "gpt_neox"])
def test_first_order_pulled_back_is_carried_forward(variant, span, kept, monkeypatch):
    _, model = make_pair(variant)
    text = Text(random_ids(11), range(7, 10) if span > 1 else range(8, 9))
    request = Request(decomposition_length=kept, extra=span == 1, own=True, span=span)
    results = []
    for advantage in (0, 10**9):
        monkeypatch.setattr(contributions, "PULL_ADVANTAGE", advantage)
        results += SCORES["first_order"](model, [text], request)
    (pulled,), (carried,) = results
    place = slice(pulled.targets.start, pulled.targets.stop)
    assert pulled.targets == carried.targets == range(text.targets.start, text.targets.start + 1)
    assert_close(pulled.scores[place], carried.scores[place], rtol=1e-11, atol=1e-11)
    assert pulled.scores[place].abs().max() > 1e-3
    row = "<own>" if span > 1 else "<bias>"
    assert_close(pulled.extra[row][place], carried.extra[row][place], rtol=1e-11, atol=1e-11)


def test_a_span_is_one_way_back():
    ids = torch.arange(100)
    assert contributions.pull_pays(Text(ids, range(40, 99)), Request(span=59))
    assert not contributions.pull_pays(Text(ids, range(40, 99)), Request(span=58))
    assert not contributions.pull_pays(Text(ids, range(30, 89)), Request(span=59))
