"""The decomposed classes as transformers models: same logits, loading, saving, generating; and loading errors."""

import json

import pytest
import torch
from torch.testing import assert_close
from transformers import BloomConfig, GPT2Config, OPTForCausalLM

import decomp
from decomp.models import DEMO_MODELS, load_model, recomputed
from decomp.models.bloom import DecomposedBloomForCausalLM
from decomp.models.checks import parse_device
from decomp.models.gpt2 import DecomposedGPT2LMHeadModel
from tests.conftest import ROOT
from tests.variants import FAMILIES, VARIANTS, make_pair, random_ids

GOLDEN = ROOT / "tests" / "golden" / "opt-tiny-pre"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_plain_forward_bit_for_bit(variant, dtype):
    plain, decomposed = make_pair(variant, dtype)
    ids = torch.stack([random_ids(17), random_ids(17, seed=2)])
    for attention in ("eager", "sdpa"):
        plain.set_attn_implementation(attention)
        decomposed.set_attn_implementation(attention)
        with torch.no_grad():
            assert_close(decomposed(ids).logits, plain(ids).logits, rtol=0, atol=0)


@pytest.mark.parametrize("targets", [1, 2, 5])
@pytest.mark.parametrize("variant", FAMILIES)
def test_attention_of_a_long_text_is_recorded_in_strips(variant, targets, monkeypatch):
    _, decomposed = make_pair(variant)
    whole = decomposed.record(random_ids(11), output_layers=True)
    seen = []

    def watched(query, key):
        seen.append(targets + (targets == query.shape[1]))
        return seen[-1]

    monkeypatch.setattr(recomputed, "targets_at_once", watched)
    in_strips = decomposed.record(random_ids(11), output_layers=True)
    assert len(seen) == len(decomposed.blocks())
    for layer, states in enumerate(whole.hidden_layers):
        assert_close(in_strips.hidden_layers[layer], states, rtol=0, atol=1e-12)
    assert_close(in_strips.hidden, whole.hidden, rtol=0, atol=1e-12)


def test_strips_hold_as_many_bytes_as_they_may_and_are_never_as_many_as_heads(monkeypatch):
    query, key = torch.zeros(1, 4, 100, 8), torch.zeros(1, 2, 100, 8)
    monkeypatch.setattr(recomputed, "STRIP_BYTES", 4 * 100 * 4 * 7)
    assert recomputed.targets_at_once(query, key) == 7
    monkeypatch.setattr(recomputed, "STRIP_BYTES", 4 * 100 * 4 * 4)
    assert recomputed.targets_at_once(query, key) == 5
    monkeypatch.setattr(recomputed, "STRIP_BYTES", 1)
    assert recomputed.targets_at_once(query, key) == 1


@pytest.mark.parametrize("variant", FAMILIES)
def test_recording_leaves_the_model_as_it_was(variant):
    _, decomposed = make_pair(variant)
    decomposed.train()
    before = set(decomposed.__dict__) - {"_kept"}
    decomposed.record(random_ids(5))
    assert decomposed.training
    assert decomposed.config._attn_implementation != "decomp_recording"
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in decomposed.modules())
    # What is kept of the weights, as data, is no state of a pass.
    assert set(decomposed.__dict__) - {"_kept"} == before


def test_parameter_names_are_unchanged():
    for variant in ("opt", "opt-post-norm", "gpt2"):
        plain, decomposed = make_pair(variant)
        assert list(plain.state_dict()) == list(decomposed.state_dict())


def test_weights_changed_in_place_are_seen():
    _, decomposed = make_pair("opt")
    ids = random_ids(6)
    decomposed.decompose(ids)
    with torch.no_grad():
        for parameter in decomposed.parameters():
            parameter.mul_(1.1)
    assert decomposed.decompose(ids).completeness_gap() <= 1e-10


@pytest.mark.parametrize("variant", ["opt", "gpt2"])
@pytest.mark.parametrize("weights", ["safetensors", "bin"])
def test_save_load_generate(variant, weights, tmp_path):
    plain, decomposed = make_pair(variant, torch.float32)
    decomposed.save_pretrained(tmp_path)
    if weights == "bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(decomposed.state_dict(), tmp_path / "pytorch_model.bin")
    again = type(decomposed).from_pretrained(tmp_path, dtype=torch.float64)
    assert again.dtype == torch.float64
    ids = random_ids(6)
    assert_close(again.float().decompose(ids).dense(), decomposed.decompose(ids).dense(), rtol=0, atol=0)
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 1}
    assert again.generate(ids[None], **options).tolist() == plain.generate(ids[None], **options).tolist()


def test_a_plain_model_reads_what_a_decomposed_one_saved(tmp_path):
    plain, decomposed = make_pair("opt", torch.float32)
    decomposed.save_pretrained(tmp_path)
    again = OPTForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    ids = random_ids(6)
    with torch.no_grad():
        assert_close(again(ids[None]).logits, plain(ids[None]).logits, rtol=0, atol=0)


def test_load_model_gives_float32_and_a_tokenizer():
    model, tokenizer = load_model(str(GOLDEN))
    assert model.dtype == torch.float32
    assert tokenizer("I", add_special_tokens=False)["input_ids"]
    assert load_model(str(GOLDEN), dtype="float64", device="cpu")[0].dtype == torch.float64


@pytest.mark.parametrize("name", DEMO_MODELS)
def test_demo_models_load_and_add_up(name):
    model, tokenizer = decomp.load_model(name)
    ids = tokenizer("Do cats eat bats?", return_tensors="pt").input_ids
    result = model.decompose(ids)
    scale = result.hidden.abs().max().item()
    assert_close(result.total(), result.hidden, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("variant", ["opt", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_reports_its_gap(variant, dtype):
    _, decomposed = make_pair(variant, dtype)
    result = decomposed.decompose(random_ids(12))
    assert result.bias.dtype == dtype
    assert 0 < result.completeness_gap() < 0.1 * result.hidden.abs().max().item()
    delta_lp = result.delta_lp()
    assert delta_lp.dtype == torch.float32
    assert_close(delta_lp.isfinite(), torch.ones_like(delta_lp, dtype=torch.bool))


def test_cross_attention_is_refused():
    with pytest.raises(ValueError, match="cross-attention"):
        DecomposedGPT2LMHeadModel(GPT2Config(add_cross_attention=True, n_layer=1, n_embd=8, n_head=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm=True is not"),
        ({"slow_but_exact": True, "pretraining_tp": 2}, "pretraining_tp=2 is not supported: .* slow_but_exact=False"),
    ],
)
def test_variants_of_bloom_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DecomposedBloomForCausalLM(BloomConfig(hidden_size=8, n_head=2, n_layer=1, **options))


@pytest.mark.parametrize("variant", ["gptj", "gpt_neo"])
def test_attention_that_is_not_recorded_is_refused(variant):
    with pytest.raises(ValueError, match="does not support Flash Attention"):
        make_pair(variant)[1].set_attn_implementation("flash_attention_2")


def test_upcast_attention_in_float64_is_refused():
    _, decomposed = make_pair("gpt2", reorder_and_upcast_attn=True)
    with pytest.raises(ValueError, match=r"does not run it in float64: use float32"):
        decomposed.decompose(random_ids(5))


def test_unsupported_architecture_lists_the_supported(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"models of type 'bert' can't be decomposed: supported are opt, gpt2"):
        load_model(str(tmp_path))


def test_folder_without_weights(tmp_path):
    make_pair("opt")[0].config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"can't read the weights .* must hold config.json, weights"):
        load_model(str(tmp_path))


def test_truncated_weights(tmp_path):
    make_pair("opt")[1].save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="can't read the weights"):
        load_model(str(tmp_path))


def test_folder_without_tokenizer(tmp_path):
    make_pair("opt")[1].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="can't load the tokenizer"):
        load_model(str(tmp_path))


def test_unknown_model(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match=r"can't load model 'no/such-model', expected a hub id, a folder, a .gguf file, or a demo"
    ):
        load_model("no/such-model")


def test_unknown_dtype_and_device():
    with pytest.raises(ValueError, match=r"unknown dtype 'float8': choose one of float64"):
        load_model(str(GOLDEN), dtype="float8")
    with pytest.raises(ValueError, match=r"device 'nonsense' can't be used here"):
        parse_device("nonsense")


def test_wrong_input_shapes():
    _, decomposed = make_pair("opt")
    with pytest.raises(ValueError, match=r"one text, .* not \(2, 5\): use decompose_batch"):
        decomposed.decompose(torch.stack([random_ids(5), random_ids(5)]))
    with pytest.raises(ValueError, match="text 1 of the batch has no tokens"):
        decomposed.decompose_batch(torch.stack([random_ids(5)] * 2), attention_mask=torch.tensor([[1] * 5, [0] * 5]))
    with pytest.raises(ValueError, match="the batch has no texts"):
        decomposed.decompose_batch([])
    with pytest.raises(ValueError, match=r"must be \(B, T\) or a list of \(T,\)"):
        decomposed.decompose_batch([random_ids(5)[None]])


def test_decomposition_length_below_one():
    _, decomposed = make_pair("opt")
    with pytest.raises(ValueError, match=r"must be at least 1 .* not 0"):
        decomposed.decompose(random_ids(5), decomposition_length=0)


def test_too_long_a_text():
    _, decomposed = make_pair("opt")
    with pytest.raises(ValueError, match="has 60 tokens, the model has 48 positions"):
        decomposed.decompose(random_ids(60))


def test_token_outside_of_the_vocabulary():
    _, decomposed = make_pair("opt")
    with pytest.raises(ValueError, match="token id 61 is not in the model's vocabulary of 61"):
        decomposed.decompose(torch.tensor([2, 61]))


def test_non_finite_hidden_states():
    _, decomposed = make_pair("opt")
    with torch.no_grad():
        decomposed.get_input_embeddings().weight[7] = float("nan")
    with pytest.raises(ValueError, match="not finite at position 0: check its weights"):
        decomposed.decompose(torch.tensor([2, 5, 7, 9]))


@pytest.mark.parametrize("variant", ["gemma", "gemma2", "gemma3"])
def test_attention_in_both_directions_is_refused(variant):
    with pytest.raises(ValueError, match=r"use_bidirectional_attention=True\) can't be decomposed .* later tokens"):
        make_pair(variant, use_bidirectional_attention=True)


@pytest.mark.parametrize("variant", FAMILIES)
def test_token_embeddings_are_what_the_first_block_is_given(variant):
    _, decomposed = make_pair(variant)
    ids, others = torch.tensor([2, 7, 7, 30]), torch.tensor([2, 9, 9, 31])
    embeddings, project_in = decomposed.token_embeddings()
    given, given_others = decomposed.record(ids).embedding, decomposed.record(others).embedding
    # Differences: absolute positions add the same to both.
    difference = embeddings[ids] - embeddings[others]
    expected = difference if project_in is None else project_in(difference, with_bias=False)
    assert_close(given - given_others, expected, rtol=0, atol=1e-12)


def test_a_revision_of_what_has_none():
    with pytest.raises(
        ValueError, match=r"demo-opt is no model of the hub, which alone have revisions: leave out 'v2'"
    ):
        load_model("demo-opt", revision="v2")
