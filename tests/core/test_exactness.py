"""Contributions + bias = the plain model's hidden state, at every layer, for every variant; two oracles."""

from contextlib import contextmanager

import pytest
import torch
from torch.testing import assert_close
from transformers.activations import ACT2FN

from decomp.models import families
from tests.reference import decompose_by_loops
from tests.variants import EVERY, FAMILIES, VARIANTS, deep, make_pair, random_ids

LENGTH = 19
EXACT = {"rtol": 0, "atol": 1e-10}


def plain_blocks(plain, decomposed):
    """The plain model's blocks, by the names that ours have."""
    names = {module: name for name, module in decomposed.named_modules()}
    return [plain.get_submodule(names[block]) for block in decomposed.blocks()]


@contextmanager
def starting_at(block, states):
    """A block given other states (texts, positions, hidden) than the embeddings made, as long as this is open."""

    def replaced(module, args, kwargs):
        return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

    handle = block.register_forward_pre_hook(replaced, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def plain_states(plain, decomposed, ids):
    """The embedding, the output of every block, and the final hidden states of the plain model."""
    kept = []
    blocks = plain_blocks(plain, decomposed)
    handle = blocks[-1].register_forward_hook(
        lambda module, args, output: kept.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad():
        outputs = plain(input_ids=ids[None], output_hidden_states=True)
    handle.remove()
    return [h[0] for h in (*outputs.hidden_states[:-1], kept[0], outputs.hidden_states[-1])], outputs.logits[0]


GATED = [f.model_type.removesuffix("_text") for f in families.FAMILIES if f.rules == families.GATE_RULES]
RULES = [{"activation_rule": "tangent", "gate_rule": "frozen"}, {"activation_rule": "secant", "gate_rule": "half"}]


@pytest.mark.parametrize("rules", RULES, ids=["tangent-frozen", "secant-half"])
@pytest.mark.parametrize("variant", EVERY)
def test_every_layer_adds_up_in_float64(variant, rules):
    plain, decomposed = make_pair(variant, **deep(variant))
    ids = random_ids(LENGTH)
    states, _ = plain_states(plain, decomposed, ids)
    result = decomposed.decompose(ids, **rules, output_layers=True)
    for layer, hidden in zip((*result.hidden_layers, result), states, strict=True):
        assert_close(layer.hidden, hidden, rtol=0, atol=0)
        assert_close(layer.dense().sum(1) + layer.bias, hidden, **EXACT)
        assert_close(layer.total(), hidden, **EXACT)
        assert layer.completeness_gap() <= 1e-10


@pytest.mark.parametrize("variant", EVERY)
def test_logits_are_the_plain_model_s_bit_for_bit(variant):
    plain, decomposed = make_pair(variant, torch.float32, **deep(variant))
    decomposed.config._attn_implementation = "eager"
    ids = random_ids(LENGTH)[None]
    with torch.no_grad():
        assert_close(decomposed(ids).logits, plain(ids).logits, rtol=0, atol=0)
        hidden = plain.base_model(ids).last_hidden_state[0]
    assert_close(decomposed.record(ids[0]).hidden, hidden, rtol=0, atol=0)


@pytest.mark.parametrize("variant", ["opt-post-norm", *FAMILIES, "gpt2-upcast"])
def test_float32_adds_up(variant):
    more = {"reorder_and_upcast_attn": True} if variant == "gpt2-upcast" else {}
    variant = variant.removesuffix("-upcast")
    plain, decomposed = make_pair(variant, torch.float32, **more)
    ids = random_ids(LENGTH)
    states, _ = plain_states(plain, decomposed, ids)
    result = decomposed.decompose(ids, output_layers=True)
    for layer, hidden in zip((*result.hidden_layers, result), states, strict=True):
        scale = hidden.abs().max().item()
        assert_close(layer.dense().sum(1) + layer.bias, hidden, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("rule", ["tangent", "secant"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_same_as_the_loop_over_pairs(variant, rule):
    plain, decomposed = make_pair(variant)
    ids = random_ids(5)
    states, _ = plain_states(plain, decomposed, ids)
    result = decomposed.decompose(ids, activation_rule=rule, output_layers=True)
    reference = decompose_by_loops(plain, ids, rule)
    for layer, hidden, (x, n, b) in zip((*result.hidden_layers, result), states, reference, strict=True):
        assert_close(x, hidden, **EXACT)
        assert_close(layer.bias, b, **EXACT)
        targets, sources = zip(*n, strict=True)
        assert_close(layer.dense()[targets, sources], torch.stack([*n.values()]), **EXACT)


def freeze(plain, monkeypatch, gated, rule):
    """Hold attention weights, 1/σ and gates of the plain model at their values; slopes are its derivatives anyway."""
    activations = tuple({type(ACT2FN[name]) for name in ACT2FN})
    for module in plain.modules():
        if type(module).__name__.endswith("Norm"):
            monkeypatch.setattr(module, "forward", frozen_norm(module))
        elif gated and isinstance(module, activations):
            monkeypatch.setattr(module, "forward", GATES[rule](module.forward))
        elif gated and rule == "half" and any(isinstance(child, activations) for child in module.children()):
            monkeypatch.setattr(module, "forward", halved(module.forward))
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda *args, **kw: softmax(*args, **kw).detach())


def frozen_norm(module):
    """x times what the norm divides the real x by, as a constant; of a LayerNorm also centred, and with its shift."""
    real, centred = module.forward, isinstance(module, torch.nn.LayerNorm)
    eps = next(getattr(module, name) for name in ("eps", "variance_epsilon") if hasattr(module, name))

    def forward(x):
        moved = x - x.mean(-1, keepdim=True) if centred else x
        inverse_std = (moved.square().mean(-1, keepdim=True) + eps).rsqrt().detach()
        # γ, whatever the norm makes of its weight: from its own output at a state that is 1 everywhere else.
        probe = torch.arange(x.shape[-1], dtype=x.dtype) - (x.shape[-1] - 1) / 2
        shift = real(torch.zeros_like(probe))
        gamma = (real(probe) - shift) / (probe * (probe.square().mean() + eps).rsqrt())
        return moved * inverse_std * gamma.detach() + shift.detach()

    return forward


GATES = {
    "frozen": lambda activation: lambda gate: activation(gate).detach(),
    "half": lambda activation: lambda gate: (activation(gate) / gate).detach() * gate,
}
"""By the rule, what becomes of φ(gate)."""


def halved(forward):
    """An MLP, both of whose factors move by half of what its input does."""
    return lambda x, *others: forward((x + x.detach()) / 2, *others)


@pytest.mark.parametrize(
    ("variant", "rule"), [*((each, "half") for each in EVERY), *((each, "frozen") for each in GATED)]
)
def test_contributions_are_jacobian_vector_products(variant, rule, monkeypatch):
    plain, decomposed = make_pair(variant)
    ids = random_ids(7)
    result, point = decomposed.decompose(ids, gate_rule=rule), decomposed.record(ids)
    freeze(plain, monkeypatch, decomposed.network().inputs == 2, rule)
    first, *_ = plain_blocks(plain, decomposed)

    def final_states(x):
        """Of one text for each source."""
        with starting_at(first, x):
            return plain.base_model(input_ids=ids.expand(7, -1)).last_hidden_state

    # In the k-th text the k-th embedding moves, along itself.
    directions = torch.diag_embed(point.embedding.T).permute(1, 2, 0)
    _, moved = torch.autograd.functional.jvp(final_states, point.embedding.expand(7, -1, -1), directions)
    assert_close(result.dense().transpose(0, 1), moved, **EXACT)


@pytest.mark.parametrize("activation", sorted(ACT2FN))
def test_any_activation_of_transformers(activation):
    plain, decomposed = make_pair("opt", activation_function=activation)
    ids = random_ids(11)
    states, _ = plain_states(plain, decomposed, ids)
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


@pytest.mark.parametrize("variant", ["opt-post-norm", *FAMILIES])
def test_no_future_sources(variant):
    _, decomposed = make_pair(variant)
    dense = decomposed.decompose(random_ids(LENGTH)).dense()
    future = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    assert_close(dense[future], torch.zeros_like(dense[future]), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("variant", "lengths"),
    # What a family has to do with it is what its attention sees: one length tells.
    [("opt-post-norm", [1, 2, 5, LENGTH - 1, LENGTH, LENGTH + 3]), *((family, [6]) for family in FAMILIES)],
)
def test_a_shorter_length_keeps_the_same_entries(variant, lengths):
    _, decomposed = make_pair(variant)
    ids = random_ids(LENGTH)
    full = decomposed.decompose(ids)
    for length in lengths:
        banded = decomposed.decompose(ids, decomposition_length=length)
        targets, sources = banded.pairs()
        assert len(targets) == sum(min(i + 1, length) for i in range(LENGTH))
        assert_close(banded.dense()[targets, sources], full.dense()[targets, sources], **EXACT)
        assert_close(banded.bias, full.bias, rtol=0, atol=0)
        older = torch.stack([full.dense()[i, : max(0, i + 1 - length)].sum(0) for i in range(LENGTH)])
        assert_close(banded.remainder(), older, **EXACT)
        assert banded.completeness_gap() <= 1e-10


@pytest.mark.parametrize(
    ("variant", "dtype", "tolerance"),
    [
        *((variant, torch.float64, 1e-10) for variant in ("opt-post-norm", *FAMILIES)),
        *((variant, torch.float32, 1e-5) for variant in ("opt-post-norm", "gpt2", "llama")),
    ],
)
def test_padded_batch_is_each_text_alone(variant, dtype, tolerance):
    _, decomposed = make_pair(variant, dtype)
    texts = [random_ids(n, seed=n) for n in (5, 9, 1)]
    alone = [decomposed.decompose(text) for text in texts]
    for places in ([slice(0, len(text)) for text in texts], [slice(9 - len(text), 9) for text in texts]):
        padded, mask = torch.ones(3, 9, dtype=torch.long), torch.zeros(3, 9, dtype=torch.long)
        for row, (text, place) in enumerate(zip(texts, places, strict=True)):
            padded[row, place], mask[row, place] = text, 1
        for result, own in zip(decomposed.decompose_batch(padded, attention_mask=mask), alone, strict=True):
            assert_close(result.dense(), own.dense(), rtol=0, atol=tolerance)
            assert_close(result.delta_lp(), own.delta_lp(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("variant", FAMILIES)
def test_position_ids(variant):
    plain, decomposed = make_pair(variant)
    # Not just moved: rotary positions know distances alone.
    ids, places = random_ids(8), torch.arange(8) * 3 + 2
    if "position_ids" in decomposed.unsupported:
        with pytest.raises(ValueError, match=f"{decomposed.config.model_type} models don't support position_ids: .*"):
            decomposed.decompose(ids, position_ids=places)
        return
    with torch.no_grad():
        hidden = plain.base_model(input_ids=ids[None], position_ids=places[None]).last_hidden_state[0]
    result = decomposed.decompose(ids, position_ids=places)
    assert_close(result.dense().sum(1) + result.bias, hidden, **EXACT)
    assert (hidden - decomposed.decompose(ids).hidden).abs().max() > 1e-2
