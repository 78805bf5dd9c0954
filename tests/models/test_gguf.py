"""Models in GGUF files: config, weights and tokenizer from one file, dequantised."""

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from decomp.models import load_model
from decomp.models.loading import load_tokenizer
from decomp.models.sources import Source, source_of
from decomp.tables.provenance import read_provenance
from tests.commands import refused
from tests.variants import make_pair, roughen

needs_gguf = pytest.mark.skipif(
    not (find_spec("gguf") and find_spec("accelerate")), reason="needs the packages gguf and accelerate (extra real)"
)
NAMES = {
    **{"attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_1": "attn_norm"},
    **{"mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down", "ln_2": "ffn_norm"},
    **{"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"},
}
"""Modules of GPT-2, and what llama.cpp calls them."""
PROJECTIONS = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")


def write_gguf(path, model, tokenizer):
    """A GPT-2 as llama.cpp's converter writes it, projections in 8 bits."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_name("tiny")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_vocab_size(config.vocab_size)
    add_tokenizer(writer, tokenizer)
    for name, value in model.transformer.state_dict().items():
        own, array = gguf_name(name), value.detach().numpy()
        if own.split(".")[-2] in PROJECTIONS and value.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(own, gguf.quants.quantize(array.T.copy(), kind), raw_dtype=kind)
        else:
            writer.add_tensor(own, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer, tokenizer):
    vocab = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocab)
    writer.add_token_merges(merges_of(tokenizer))
    writer.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token in vocab])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)


def merges_of(tokenizer):
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def gguf_name(name):
    *place, kind = name.split(".")
    block = f"blk.{place[1]}." if place[0] == "h" else ""
    return f"{block}{NAMES['.'.join(place[2:] if block else place)]}.{kind}"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A GGUF file, and the model and tokenizer that are in it."""
    tokenizer = load_tokenizer("demo-gpt2")
    sizes = {"vocab_size": len(tokenizer), "n_embd": 32, "n_positions": 1024, "bos_token_id": 0, "eos_token_id": 0}
    _, model = make_pair("gpt2", torch.float32, **sizes)
    path = tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf"
    write_gguf(path, model, tokenizer)
    return path, model, tokenizer


@needs_gguf
def test_a_gguf_file_is_a_model(written):
    """Weights as the format's own package unpacks them, the same tokens, exact decomposition."""
    from gguf.quants import GGMLQuantizationType, dequantize, quantize

    path, original, own_tokenizer = written
    model, tokenizer = load_model(str(path), dtype="float64")
    text = "Do cats eat bats? It didn't, she said."
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    assert ids[0].tolist() == own_tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.bos_token_id == own_tokenizer.bos_token_id
    up = original.transformer.h[1].mlp.c_fc.weight.detach().numpy()
    q8 = GGMLQuantizationType.Q8_0
    assert_close(
        model.transformer.h[1].mlp.c_fc.weight.detach(),
        torch.from_numpy(dequantize(quantize(up.T.copy(), q8), q8)).T.double(),
        rtol=0,
        atol=0,
    )
    assert_close(model.transformer.wpe.weight.data, original.transformer.wpe.weight.data.double(), rtol=0, atol=0)
    result = model.decompose(ids)
    assert result.completeness_gap() <= 1e-10
    assert result.about["weights_note"] == "dequantised from GGUF"
    assert result.about["model"] == "tiny.Q8_0.gguf"


LLAMA_NAMES = {
    **{"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"},
    **{"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"},
    **{"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"},
    **{"embed_tokens": "token_embd", "norm": "output_norm"},
}


def permuted(weight, heads):
    """Rows of queries or keys in the order of llama.cpp's rotary embedding."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(0, 2, 1, 3).reshape(weight.shape).copy()


def write_llama(path, model, tokenizer):
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    add_tokenizer(writer, tokenizer)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, value in model.model.state_dict().items():
        place = name.split(".")[:-1]
        block = f"blk.{place[1]}." if place[0] == "layers" else ""
        own, array = LLAMA_NAMES[".".join(place[2:] if block else place)], value.detach().numpy()
        writer.add_tensor(f"{block}{own}.weight", permuted(array, heads[own]) if own in heads else array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@needs_gguf
def test_a_llama_in_a_gguf_file(tmp_path):
    tokenizer = load_tokenizer("demo-gpt2")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 40}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 500.0, "tie_word_embeddings": True}
    config = LlamaConfig(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **sizes, **heads)
    original = LlamaForCausalLM(config).eval()
    roughen(original)
    path = tmp_path / "llama.gguf"
    write_llama(path, original, tokenizer)
    model, _ = load_model(str(path))
    ids = torch.tensor([[0, 5, 17, 300, 4]])
    original.set_attn_implementation("eager")
    with torch.no_grad():
        assert_close(model(ids).logits, original(ids).logits, rtol=1e-4, atol=1e-4)
    gap = load_model(str(path), dtype="float64")[0].decompose(ids).completeness_gap()
    assert gap <= 1e-10


@needs_gguf
def test_what_was_in_a_gguf_file_is_an_ordinary_model(written, tmp_path):
    path, _, tokenizer = written
    model, _ = load_model(str(path))
    assert not model.is_quantized
    assert "quantization_config" not in model.config.to_dict()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, _ = load_model(str(tmp_path))
    assert_close(dict(again.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    assert "weights_note" not in again.about()


@needs_gguf
def test_loading_shows_no_bar_where_transformers_shows_none(written, capfd):
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        load_model(str(written[0]))
    finally:
        if shown:
            logging.enable_progress_bar()
    assert capfd.readouterr().err == ""


@needs_gguf
def test_gguf_in_a_command(written, done):
    path, _, _ = written
    rows = done("score", "--text", "She said", path).splitlines()
    assert len(rows) > 2
    done("score", "--text", "She said", path, "-o", "table.tsv")
    assert read_provenance(Path("table.tsv"))["model"]["weights_note"] == "dequantised from GGUF"


@needs_gguf
@pytest.mark.parametrize("size", [0, 3, 4, 200, 5000, 300_000])
def test_damaged_gguf_files(written, tmp_path, size):
    path = tmp_path / "cut.gguf"
    path.write_bytes(written[0].read_bytes()[:size])
    with pytest.raises(ValueError, match=r"cut\.gguf") as caught:
        load_model(str(path))
    assert "\n" not in str(caught.value)


@needs_gguf
def test_no_gguf_file(tmp_path, run):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04zip")
    assert refused(run("score", "--text", "A", path)).endswith(
        "model.gguf is no GGUF file: it begins with b'PK\\x03\\x04', not b'GGUF'"
    )
    with pytest.raises(
        ValueError, match=r"there is no file .*none\.gguf: expected a \.gguf file, or owner/repository/f"
    ):
        load_model(str(tmp_path / "none.gguf"))
    with pytest.raises(ValueError, match=r"there is no file none\.gguf"):
        load_model("none.gguf")


@needs_gguf
def test_where_gguf_files_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert source_of("owner/some-GGUF/a/b.gguf") == Source("owner/some-GGUF/a/b.gguf", "owner/some-GGUF", "a/b.gguf")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert source_of("x.gguf") == Source("x.gguf", ".", "x.gguf")
    (tmp_path / "folder.gguf").mkdir()
    assert source_of("folder.gguf") == Source("folder.gguf", "folder.gguf")


@pytest.mark.parametrize("lacking", [("gguf",), ("accelerate",), ("gguf", "accelerate")])
def test_without_the_packages(monkeypatch, lacking):
    monkeypatch.setattr(
        "decomp.models.sources.find_spec", lambda name: None if name in lacking else SimpleNamespace(name=name)
    )
    expected = (
        rf"x\.gguf needs the package {' and '.join(lacking)} to be read: pip install 'tokenwise-decomp.*\[real\]'"
    )
    with pytest.raises(ValueError, match=expected):
        load_model("x.gguf")
