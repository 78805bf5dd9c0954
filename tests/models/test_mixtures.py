"""Mixtures of experts: what is frozen, what is held, what is refused. Exactness is tested for every architecture."""

import pytest
import torch
from torch.testing import assert_close

from decomp.core import engine
from decomp.models.precision import own_precision
from decomp.models.routing import weight_gradients
from tests.variants import make_pair, random_ids

MIXTURES = ["mixtral", "olmoe", "qwen3_moe"]
EXACT = {"rtol": 0, "atol": 1e-10}


def mixtures_of(model, ids):
    """The frozen mixtures of a text, with the modules that hold their routers and experts."""
    frozen = [branch.operator for branch in model.record(ids).branches if not branch.operator.mixes_positions]
    sites = [site.body for site in model.branch_sites() if site.body.kind == "mlp"]
    return [(own, site) for own, site in zip(frozen, sites, strict=True) if hasattr(own, "visit_index")]


@pytest.mark.parametrize("variant", MIXTURES)
def test_every_position_visits_the_experts_that_its_router_weighs_most(variant):
    _, model = make_pair(variant)
    mixtures = mixtures_of(model, random_ids(12))
    assert len(mixtures) == (1 if variant == "qwen3_moe" else 2)
    for own, _ in mixtures:
        visited = (own.visit_index >= 0).sum(0)
        assert (visited == model.config.num_experts_per_tok).all()
        assert ((own.visit_index >= 0).sum(1) > 0).sum() > model.config.num_experts_per_tok


@pytest.mark.parametrize("variant", MIXTURES)
def test_experts_that_no_position_visits_change_nothing(variant):
    _, model = make_pair(variant)
    ids = random_ids(3)
    before, logits = model.decompose(ids).dense(), model(ids[None]).logits
    changed = 0
    for own, site in mixtures_of(model, ids):
        idle = (own.visit_index < 0).all(1)
        changed += int(idle.sum())
        with torch.no_grad():
            site.experts.gate_up_proj[idle] *= 3
            site.experts.down_proj[idle] += 1
    assert changed > 0
    assert_close(model.decompose(ids).dense(), before, rtol=0, atol=0)
    assert_close(model(ids[None]).logits, logits, rtol=0, atol=0)


@pytest.mark.parametrize("variant", MIXTURES)
def test_weights_of_experts_are_views(variant):
    _, model = make_pair(variant)
    held = {p.untyped_storage().data_ptr() for p in model.parameters()}
    mixtures = mixtures_of(model, random_ids(4))
    for own, _ in mixtures:
        for expert in own.mixture.experts:
            maps = (*expert.inputs, expert.output)
            assert {x.weight.untyped_storage().data_ptr() for x in maps} <= held
    slopes = sum(s.numel() for own, _ in mixtures for expert in own.experts for s in expert.slopes)
    # A row of slopes for each visit and factor of the product, none for the experts that are not visited.
    assert slopes == 2 * len(mixtures) * 4 * model.config.num_experts_per_tok * mixtures[0][0].mixture.neurons


@pytest.mark.parametrize("gate_rule", ["frozen", "half"])
@pytest.mark.parametrize("variant", MIXTURES)
def test_memory_and_sizes_of_panels_change_nothing(variant, gate_rule, monkeypatch):
    _, model = make_pair(variant)
    texts = [random_ids(n, seed=n) for n in (30, 7)]
    whole = model.decompose_batch(texts, gate_rule=gate_rule)
    monkeypatch.setattr(engine, "PANEL_WIDTH", 4)
    monkeypatch.setattr(engine, "BLOCK_ROWS", 10)
    for one, other in zip(model.decompose_batch(texts, gate_rule=gate_rule, memory="1100KiB"), whole, strict=True):
        assert_close(one.dense(), other.dense(), **EXACT)
    with pytest.raises(ValueError, match=r"a text of 30 tokens needs .* to propagate one source"):
        model.decompose_batch(texts, gate_rule=gate_rule, memory="100KiB")


@pytest.mark.parametrize("variant", MIXTURES)
def test_a_block_in_earnest_routes_anew(variant):
    plain, model = make_pair(variant)
    block, kept = plain.model.layers[0], {}
    block.self_attn.o_proj.register_forward_hook(lambda m, a, output: kept.update(attention=output[0]))
    with torch.no_grad():
        states = plain(random_ids(9)[None], output_hidden_states=True).hidden_states
    again = model.after_attention(0, states[0][0], kept["attention"])
    assert_close(again, states[1][0], **EXACT)


def test_gradients_of_weights_are_finite_differences():
    _, model = make_pair("mixtral")
    router = model.model.layers[0].mlp.gate
    x = torch.randn(5, 24, dtype=torch.float64)
    step = 1e-6 * torch.randn_like(x)
    with own_precision(torch.float64):
        chosen = router(x)[2]
        exact = weight_gradients(router, x, chosen)
        moved = router(x + step)[1] - router(x - step)[1]
    assert moved.abs().max() > 1e-8
    assert_close((exact * 2 * step[:, None]).sum(-1), moved.detach(), rtol=1e-6, atol=1e-12)
    with (
        own_precision(torch.float64),
        pytest.raises(ValueError, match="the router chooses other experts for the same input"),
    ):
        weight_gradients(router, x, chosen.flip(1))


@pytest.mark.parametrize("variant", MIXTURES)
def test_neurons_are_refused(variant):
    _, model = make_pair(variant)
    with pytest.raises(ValueError, match=rf"{variant} models don't support neurons: a position has those of the exp"):
        model.neurons_shape()


def test_clipped_values_are_refused():
    with pytest.raises(
        ValueError, match=r"OLMoE with clipped values \(clip_qkv=8\) can't be decomposed.*clip_qkv=None"
    ):
        make_pair("olmoe", clip_qkv=8.0)
