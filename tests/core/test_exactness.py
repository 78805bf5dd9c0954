"""Contributions + bias = the plain model's hidden state, at every layer, for every variant; two oracles."""

import pytest
import torch
from torch.testing import assert_close
from transformers.activations import ACT2FN

from tests.reference import decompose_by_loops
from tests.variants import VARIANTS, make_pair, random_ids

LENGTH = 19
EXACT = {"rtol": 0, "atol": 1e-10}


def plain_states(plain, ids):
    """The embedding, the output of every block, and the final hidden states of the plain model."""
    kept = []
    blocks = plain.model.decoder.layers if plain.config.model_type == "opt" else plain.transformer.h
    handle = blocks[-1].register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        outputs = plain(input_ids=ids[None], output_hidden_states=True)
    handle.remove()
    return [h[0] for h in (*outputs.hidden_states[:-1], kept[0], outputs.hidden_states[-1])], outputs.logits[0]


@pytest.mark.parametrize("rule", ["tangent", "secant"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layer_adds_up_in_float64(variant, rule):
    plain, decomposed = make_pair(variant)
    ids = random_ids(LENGTH)
    states, _ = plain_states(plain, ids)
    result = decomposed.decompose(ids, activation_rule=rule, output_layers=True)
    for layer, hidden in zip((*result.hidden_layers, result), states, strict=True):
        assert_close(layer.hidden, hidden, rtol=0, atol=0)
        assert_close(layer.dense().sum(1) + layer.bias, hidden, **EXACT)
        assert_close(layer.total(), hidden, **EXACT)
        assert layer.completeness_gap() <= 1e-10


@pytest.mark.parametrize("variant", [*VARIANTS, "gpt2-upcast"])
def test_float32_adds_up(variant):
    more = {"reorder_and_upcast_attn": True} if variant == "gpt2-upcast" else {}
    plain, decomposed = make_pair(variant, torch.float32, **more)
    ids = random_ids(LENGTH)
    states, _ = plain_states(plain, ids)
    result = decomposed.decompose(ids, output_layers=True)
    for layer, hidden in zip((*result.hidden_layers, result), states, strict=True):
        scale = hidden.abs().max().item()
        assert_close(layer.dense().sum(1) + layer.bias, hidden, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("rule", ["tangent", "secant"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_same_as_the_loop_over_pairs(variant, rule):
    plain, decomposed = make_pair(variant)
    ids = random_ids(7)
    states, _ = plain_states(plain, ids)
    result = decomposed.decompose(ids, activation_rule=rule, output_layers=True)
    reference = decompose_by_loops(plain, ids, rule)
    for layer, hidden, (x, n, b) in zip((*result.hidden_layers, result), states, reference, strict=True):
        tolerance = {"rtol": 0, "atol": 1e-10}
        assert_close(x, hidden, **tolerance)
        assert_close(layer.bias, b, **tolerance)
        dense = layer.dense()
        for (i, k), vector in n.items():
            assert_close(dense[i, k], vector, **tolerance)


def freeze(plain, ids, monkeypatch):
    """Hold attention weights, 1/σ and slopes of the plain model at their values on `ids`."""
    for module in plain.modules():
        if isinstance(module, torch.nn.LayerNorm):
            monkeypatch.setattr(module, "forward", frozen_norm(module))
    activations = {type(a) for a in (ACT2FN[plain.config.activation_function],)}
    for module in plain.modules():
        if type(module) in activations:
            monkeypatch.setattr(module, "forward", frozen_activation(module.forward))
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda *args, **kw: softmax(*args, **kw).detach())


def frozen_norm(module):
    def forward(x):
        centred = x - x.mean(-1, keepdim=True)
        inverse_std = (centred.square().mean(-1, keepdim=True) + module.eps).rsqrt().detach()
        scaled = centred * inverse_std
        return scaled if module.weight is None else scaled * module.weight + module.bias

    return forward


def frozen_activation(activation):
    def forward(a):
        point = a.detach().requires_grad_()
        with torch.enable_grad():
            value = activation(point)
            (slope,) = torch.autograd.grad(value.sum(), point)
        return slope * a + (value.detach() - slope * point.detach())

    return forward


@pytest.mark.parametrize("variant", ["opt", "opt-post-norm-wide", "opt-gelu", "gpt2", "gpt2-inverse-layer"])
def test_contributions_are_jacobian_vector_products(variant, monkeypatch):
    plain, decomposed = make_pair(variant)
    ids = random_ids(9)
    result = decomposed.decompose(ids)
    point = decomposed.record(ids)
    freeze(plain, ids, monkeypatch)
    tokens = plain.get_input_embeddings()(ids).detach()

    def final_states(embedded):
        return plain.base_model(inputs_embeds=embedded[None]).last_hidden_state[0]

    for k in range(len(ids)):
        direction = torch.zeros_like(tokens)
        direction[k] = point.embedding[k]
        _, moved = torch.autograd.functional.jvp(final_states, tokens, direction)
        assert_close(result.dense()[:, k], moved, **EXACT)


@pytest.mark.parametrize("activation", sorted(ACT2FN))
def test_any_activation_of_transformers(activation):
    plain, decomposed = make_pair("opt", activation_function=activation, num_hidden_layers=2)
    ids = random_ids(11)
    states, _ = plain_states(plain, ids)
    result = decomposed.decompose(ids)
    assert_close(result.dense().sum(1) + result.bias, states[-1], **EXACT)


def test_relu_has_one_decomposition():
    _, decomposed = make_pair("opt")
    ids = random_ids(LENGTH)
    tangent, secant = (decomposed.decompose(ids, activation_rule=rule) for rule in ("tangent", "secant"))
    assert_close(tangent.dense(), secant.dense(), **EXACT)


def test_rules_differ_for_gelu():
    _, decomposed = make_pair("gpt2")
    ids = random_ids(LENGTH)
    tangent, secant = (decomposed.decompose(ids, activation_rule=rule) for rule in ("tangent", "secant"))
    assert (tangent.dense() - secant.dense()).abs().max() > 1e-2


@pytest.mark.parametrize("variant", ["opt", "opt-post-norm", "gpt2"])
def test_no_future_sources(variant):
    _, decomposed = make_pair(variant)
    dense = decomposed.decompose(random_ids(LENGTH)).dense()
    future = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    assert_close(dense[future], torch.zeros_like(dense[future]), rtol=0, atol=0)


@pytest.mark.parametrize("length", [1, 2, 5, LENGTH - 1, LENGTH, LENGTH + 3])
@pytest.mark.parametrize("variant", ["opt", "opt-post-norm", "gpt2"])
def test_a_shorter_length_keeps_the_same_entries(variant, length):
    _, decomposed = make_pair(variant)
    ids = random_ids(LENGTH)
    full = decomposed.decompose(ids)
    banded = decomposed.decompose(ids, decomposition_length=length)
    targets, sources = banded.pairs()
    assert len(targets) == sum(min(i + 1, length) for i in range(LENGTH))
    assert_close(banded.dense()[targets, sources], full.dense()[targets, sources], **EXACT)
    assert_close(banded.bias, full.bias, rtol=0, atol=0)
    older = torch.stack([full.dense()[i, : max(0, i + 1 - length)].sum(0) for i in range(LENGTH)])
    assert_close(banded.remainder(), older, **EXACT)
    assert banded.completeness_gap() <= 1e-10


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("variant", ["opt", "opt-post-norm", "gpt2"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_padded_batch_is_each_text_alone(variant, side, dtype, tolerance):
    _, decomposed = make_pair(variant, dtype)
    texts = [random_ids(n, seed=n) for n in (5, 12, 1, 9)]
    padded = torch.ones(4, 12, dtype=torch.long)
    mask = torch.zeros(4, 12, dtype=torch.long)
    for row, text in enumerate(texts):
        place = slice(0, len(text)) if side == "right" else slice(12 - len(text), 12)
        padded[row, place], mask[row, place] = text, 1
    results = decomposed.decompose_batch(padded, attention_mask=mask)
    for text, result in zip(texts, results, strict=True):
        alone = decomposed.decompose(text)
        assert_close(result.dense(), alone.dense(), rtol=0, atol=tolerance)
        assert_close(result.delta_lp(), alone.delta_lp(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("variant", ["opt", "gpt2"])
def test_position_ids(variant):
    plain, decomposed = make_pair(variant)
    ids, places = random_ids(8), torch.arange(5, 13)
    with torch.no_grad():
        hidden = plain.base_model(input_ids=ids[None], position_ids=places[None]).last_hidden_state[0]
    result = decomposed.decompose(ids, position_ids=places)
    assert_close(result.dense().sum(1) + result.bias, hidden, **EXACT)
    assert (hidden - decomposed.decompose(ids).hidden).abs().max() > 1e-2
