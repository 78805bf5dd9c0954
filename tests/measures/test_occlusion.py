"""Occlusion against forward passes over shortened texts, loops over replaced ones, and captum."""

import math

import pytest
import torch
from torch.testing import assert_close

from decomp.measures import SCORES, OcclusionOptions, Request, Text
from decomp.measures import occlusion as module
from decomp.measures.functions import FUNCTIONS
from decomp.measures.occlusion import function_values, texts_at_once
from decomp.models.passes import shared_length
from tests.variants import VOCAB, make_pair, random_ids

LENGTH = 9
EXACT = {"rtol": 0, "atol": 1e-10}
VARIANTS = ["opt", "opt-post-norm", "opt-pre-norm-projected", "gpt2", "gpt2-inverse-layer"]


def occlusion(model, ids, targets=None, foils=None, replacement="mask", **options):
    request = Request(occlusion=OcclusionOptions(replacement), **options)
    text = Text(ids, range(len(ids) - 1) if targets is None else targets, foils)
    ((result,),) = SCORES["occlusion"](model, [text], request)
    return result


@torch.no_grad()
def plain_logits(plain, ids, places):
    return plain(input_ids=ids[None], position_ids=places[None]).logits[0]


def by_shortened_texts(plain, ids, foils):
    """F(x) − F(x without k) of every function, the plain model run on the text without k, positions as they were."""
    places = torch.arange(len(ids))
    whole = plain_logits(plain, ids, places)
    scores = {function: torch.zeros(len(ids) - 1, len(ids), dtype=torch.float64) for function in FUNCTIONS}
    for i in range(len(ids) - 1):
        token, foil = ids[i + 1, None], foils[i, None]
        for k in range(i + 1):
            left = places[(places != k) & (places <= i)]
            logits = plain_logits(plain, ids[left], left)[-1:] if len(left) else torch.zeros_like(whole[:1])
            for name, function in FUNCTIONS.items():
                scores[name][i, k] = (function(whole[i, None], token, foil) - function(logits, token, foil))[0]
    return scores


@pytest.mark.parametrize("variant", VARIANTS)
def test_masked_is_a_forward_over_the_shortened_text(variant):
    plain, model = make_pair(variant)
    ids, foils = random_ids(LENGTH), random_ids(LENGTH, seed=7)[1:]
    for function, expected in by_shortened_texts(plain, ids, foils).items():
        assert_close(occlusion(model, ids, foils=foils, function=function).scores, expected, **EXACT)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_hidden_key_is_an_attention_mask(variant):
    """As behind an attention mask of transformers, positions as they were: the newest source still predicts."""
    plain, model = make_pair(variant)
    ids = random_ids(LENGTH)
    scores, masked = (occlusion(model, ids, replacement=kind, function="prob").scores for kind in ("key", "mask"))
    for i in range(LENGTH - 1):
        # All of the prefix, then the k-th text without k.
        mask = torch.cat([torch.ones(1, i + 1), 1 - torch.eye(i + 1)]).long()
        prefixes, positions = (each[: i + 1].expand(i + 2, -1) for each in (ids, torch.arange(LENGTH)))
        with torch.no_grad():
            logits = plain(input_ids=prefixes, attention_mask=mask, position_ids=positions).logits[:, -1]
        whole, *without = logits.softmax(-1)[:, ids[i + 1]]
        assert_close(scores[i, : i + 1], whole - torch.stack(without), **EXACT)
    older = torch.ones_like(scores, dtype=torch.bool).tril(-1)
    assert_close(scores[older], masked[older], **EXACT)
    assert (scores - masked).diagonal()[1:].abs().min() > 1e-6


WINDOWED = ["mistral", "qwen2-window", "gemma2", "gemma3", "phi3-window", "starcoder2"]


@pytest.mark.parametrize("variant", WINDOWED)
def test_masked_keeps_sliding_windows_and_soft_caps(variant):
    plain, model = make_pair(variant)
    ids, places = random_ids(LENGTH), torch.arange(LENGTH)[None]
    assert plain.config.sliding_window < LENGTH
    scores = occlusion(model, ids).scores
    with torch.no_grad():
        whole = plain(ids[None]).logits[0].log_softmax(-1) / math.log(2)
        for k in range(1, LENGTH - 2):
            # By the model's own way to leave out a token: as padding, positions as they were.
            mask = torch.ones_like(places).index_fill_(1, torch.tensor([k]), 0)
            logits = plain(ids[None], attention_mask=mask, position_ids=places).logits[0]
            without = logits.log_softmax(-1) / math.log(2)
            later = torch.arange(k + 1, LENGTH - 1)
            expected = (whole - without)[later, ids[later + 1]]
            assert_close(scores[later, k], expected, **EXACT)


@pytest.mark.parametrize("variant", WINDOWED)
def test_removing_nothing_keeps_windows_with_and_without_a_shared_beginning(variant):
    _, model = make_pair(variant)
    ids = random_ids(LENGTH).repeat(2, 1)
    ids[1, 7] = 5
    hidden = [model.record(text).hidden for text in ids]
    assert_close(model.hidden_without(ids[:1])[0], hidden[0], **EXACT)
    assert_close(model.hidden_without(ids), torch.stack(hidden), **EXACT)


@pytest.mark.parametrize("variant", VARIANTS)
def test_replaced_by_a_loop(variant):
    plain, model = make_pair(variant)
    ids, foils, token = random_ids(LENGTH), random_ids(LENGTH, seed=7)[1:], 5
    with torch.no_grad():
        whole = plain(input_ids=ids[None]).logits[0, :-1]
        changed = [plain(input_ids=torch.where(torch.arange(LENGTH) == k, token, ids)[None]) for k in range(LENGTH - 1)]
    for function, value in FUNCTIONS.items():
        expected = torch.zeros(LENGTH - 1, LENGTH, dtype=torch.float64)
        for k, without in enumerate(changed):
            lost = value(whole, ids[1:], foils) - value(without.logits[0, :-1], ids[1:], foils)
            expected[k:, k] = lost[k:]
        result = occlusion(model, ids, foils=foils, replacement=token, function=function)
        assert_close(result.scores, expected, **EXACT)


@pytest.mark.parametrize("variant", ["opt", "gpt2"])
def test_replaced_as_captum_has_it(variant):
    captum = pytest.importorskip("captum.attr", reason="needs captum (extra test)")
    plain, model = make_pair(variant)
    ids, token = random_ids(LENGTH), 5
    scores = occlusion(model, ids, replacement=token).scores
    for i in (0, 3, LENGTH - 2):

        @torch.no_grad()
        def log2_prob(prefix, i=i):
            return FUNCTIONS["log2_prob"](plain(prefix).logits[:, -1], ids[i + 1].expand(len(prefix)))

        ablation = captum.FeatureAblation(log2_prob)
        shares = ablation.attribute(ids[None, : i + 1], baselines=token)
        assert_close(scores[i, : i + 1], shares[0].double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("variant", "switches", "dtype"),
    [
        *(
            (v, {}, dtype)
            for v in ("opt", "opt-post-norm", "gpt2", "llama")
            for dtype in (torch.float64, torch.float32)
        ),
        # In float64 transformers does not run it.
        ("gpt2", {"reorder_and_upcast_attn": True}, torch.float32),
    ],
)
def test_nothing_removed_is_the_recorded_pass(variant, switches, dtype):
    _, model = make_pair(variant, dtype, **switches)
    ids = random_ids(LENGTH)
    hidden = model.record(ids).hidden
    assert_close(model.hidden_without(ids[None])[0], hidden, rtol=0, atol=0)
    nothing = torch.zeros(2, LENGTH, dtype=torch.bool)
    both = model.hidden_without(torch.stack([ids, random_ids(LENGTH, seed=4)]), nothing)
    assert_close(both[0], hidden, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_texts_begin_with_is_computed_once(variant):
    _, model = make_pair(variant)
    ids = random_ids(LENGTH).repeat(3, 1)
    ids[1, 6] = 5
    removed = torch.zeros_like(ids, dtype=torch.bool)
    removed[0, 4] = removed[2, [5, 7]] = True
    assert shared_length(ids, removed) == 4
    assert shared_length(ids, None) == 6
    assert shared_length(ids[:1].expand(2, -1), None) == LENGTH - 1
    together = model.hidden_without(ids, removed)
    for text, without, hidden in zip(ids, removed, together, strict=True):
        assert_close(hidden, model.hidden_without(text[None], without[None])[0], **EXACT)


def test_the_model_is_left_as_it_was():
    _, model = make_pair("opt")
    model.train()
    before = model.config._attn_implementation
    model.hidden_without(random_ids(4)[None])
    assert model.training
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("replacement", ["mask", 5])
@pytest.mark.parametrize("variant", ["opt", "opt-post-norm", "gpt2"])
def test_memory_changes_nothing(variant, replacement, monkeypatch):
    _, model = make_pair(variant)
    ids = random_ids(LENGTH)
    plenty = occlusion(model, ids, replacement=replacement)
    for count in (1, 4):
        monkeypatch.setattr(module, "texts_at_once", lambda *sizes, count=count: count)
        assert_close(occlusion(model, ids, replacement=replacement).scores, plenty.scores, **EXACT)


@pytest.mark.parametrize("variant", ["opt", "gpt2"])
def test_only_what_is_asked_for(variant):
    _, model = make_pair(variant)
    ids = random_ids(LENGTH)
    whole = occlusion(model, ids)
    some = occlusion(model, ids, range(4, 6), decomposition_length=3)
    assert some.decomposition_length == 3
    kept = torch.zeros(LENGTH - 1, LENGTH, dtype=torch.bool)
    kept[4, 2:5] = kept[5, 3:6] = True
    assert_close(some.scores, whole.scores.masked_fill(~kept, 0), **EXACT)
    assert_close(some.log2_prob, whole.log2_prob, rtol=0, atol=0)
    nothing = occlusion(model, ids, range(3, 3))
    assert_close(nothing.scores, torch.zeros_like(whole.scores), rtol=0, atol=0)


@pytest.mark.parametrize("variant", ["opt", "gpt2"])
def test_texts_together_are_each_alone(variant):
    _, model = make_pair(variant)
    texts = [Text(random_ids(n, seed=n), range(n - 1)) for n in (5, 11, 1, 8)]
    for text, (together,) in zip(texts, SCORES["occlusion"](model, texts, Request()), strict=True):
        assert_close(together.scores, occlusion(model, text.ids).scores, rtol=0, atol=0)


def test_a_context_of_nothing_is_uniform():
    _, model = make_pair("gpt2")
    result = occlusion(model, random_ids(LENGTH))
    expected = result.log2_prob[0] + torch.tensor(VOCAB, dtype=torch.float64).log2()
    assert_close(result.scores[0, 0], expected, **EXACT)


def test_logits_a_few_at_a_time():
    _, model = make_pair("gpt2")
    hidden, empty = torch.randn(7, 24, dtype=torch.float64), torch.tensor([False] * 6 + [True])
    tokens, foils = torch.arange(7), torch.arange(7) + 1
    unembedding = model.unembedding()
    for function in FUNCTIONS.values():
        logits = unembedding.logits(hidden)
        logits[6] = 0
        few = function_values(hidden, empty, tokens, foils, unembedding, function, memory=VOCAB * 8 * 4 * 2)
        assert_close(few, function(logits, tokens, foils), **EXACT)


def test_how_many_texts_fit():
    _, model = make_pair("gpt2")
    # 10 positions, 4 heads, 96 neurons, 24 wide: 10 · (160 + 20 + 288 + 240) numbers.
    assert texts_at_once(model.network(), 10, 8, 5 * 8 * 7080 + 1) == 5
    assert texts_at_once(model.network(), 10, 8, 1) == 1
    assert texts_at_once(model.network(), 10, 8, 2**40) == 2**26 // (8 * 7080)


def test_half_precision():
    _, model = make_pair("gpt2", torch.bfloat16)
    scores = occlusion(model, random_ids(LENGTH)).scores
    assert scores.dtype == torch.float32
    assert_close(scores.isfinite(), torch.ones_like(scores, dtype=torch.bool))
