"""What is refused by name when a model is loaded, and what is not."""

import json
import os
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoTokenizer, GPT2LMHeadModel, OPTForCausalLM

from decomp.models import load_model
from decomp.models.checks import in_order
from decomp.models.families import DATA
from tests.commands import refused
from tests.variants import config_of, make_pair, roughen

TOKENIZER = DATA / "demo-gpt2"
SMALL = {"bos_token_id": 0, "eos_token_id": 0}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of tiny models with a tokenizer that fits, one a variant; to be copied."""
    folders = {}
    vocab = len(AutoTokenizer.from_pretrained(TOKENIZER))
    for variant, tied in (("gpt2", True), ("opt", True), ("opt-untied", False)):
        config = config_of(variant, vocab_size=vocab, **SMALL)
        assert config.tie_word_embeddings == tied
        model_class = GPT2LMHeadModel if variant == "gpt2" else OPTForCausalLM
        model = model_class(config)
        roughen(model)
        folders[variant] = tmp_path_factory.mktemp(variant)
        model.save_pretrained(folders[variant])
        for file in TOKENIZER.glob("*tok*"):
            shutil.copy(file, folders[variant])
    return folders


@pytest.fixture
def model_of(saved, tmp_path):
    def copied(variant="gpt2"):
        return shutil.copytree(saved[variant], tmp_path / f"my-{variant}")

    return copied


def change_weights(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("variant", ["gpt2", "opt", "opt-untied"])
@pytest.mark.parametrize("form", ["as saved", "bin", "sharded", "float16", "head written out"])
def test_whole_models_load(model_of, variant, form):
    folder = model_of(variant)
    expected = load_file(folder / "model.safetensors")
    if form == "bin":
        torch.save(expected, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    elif form == "sharded":
        names = sorted(expected)
        files = {name: f"model-0000{1 + (n % 2)}-of-00002.safetensors" for n, name in enumerate(names)}
        for file in set(files.values()):
            save_file({name: expected[name] for name in names if files[name] == file}, folder / file, {"format": "pt"})
        index = {"metadata": {}, "weight_map": files}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        (folder / "model.safetensors").unlink()
    elif form == "float16":
        expected = {name: value.half() for name, value in expected.items()}
        change_weights(folder, lambda weights: weights.update(expected))
    elif form == "head written out" and variant != "opt-untied":
        embedding = next(name for name in expected if name.endswith(("wte.weight", "embed_tokens.weight")))
        change_weights(folder, lambda weights: weights.update({"lm_head.weight": expected[embedding].clone()}))
    model, _ = load_model(str(folder))
    own = model.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(own[name], value.float(), rtol=0, atol=0)


def test_masks_of_older_files_are_no_weights(model_of):
    folder = model_of()
    weights = load_file(folder / "model.safetensors")
    old = {name.removeprefix("transformer."): value for name, value in weights.items()}
    old |= {f"h.{n}.attn.bias": torch.ones(1, 1, 48, 48) for n in range(2)}
    old |= {f"h.{n}.attn.masked_bias": torch.tensor(-1e4) for n in range(2)}
    (folder / "model.safetensors").unlink()
    torch.save(old, folder / "pytorch_model.bin")
    model, _ = load_model(str(folder))
    torch.testing.assert_close(model.transformer.h[1].ln_1.weight.data, old["h.1.ln_1.weight"], rtol=0, atol=0)


def test_missing_weights_are_named(model_of):
    folder = model_of()
    change_weights(folder, lambda weights: weights.pop("transformer.h.1.ln_2.bias"))
    with pytest.raises(
        ValueError, match=r"can't use model '.*my-gpt2': .* 1 weights \(.*h\.1\.ln_2\.bias\) are missing"
    ):
        load_model(str(folder))


def test_unexpected_weights_are_named(model_of):
    folder = model_of("opt")
    change_weights(folder, lambda weights: weights.update({"adapter.scale": torch.ones(3)}))
    with pytest.raises(ValueError, match=r"1 weights \(adapter\.scale\) belong to no part of the model"):
        load_model(str(folder))


def test_weights_of_another_shape_are_named(model_of):
    folder = model_of("opt")
    name = "model.decoder.layers.0.fc1.weight"
    change_weights(folder, lambda weights: weights.update({name: torch.ones(3, 24)}))
    with pytest.raises(ValueError, match=rf"1 weights \({re.escape(name)} \(3, 24\), not \(40, 24\)\) have another sh"):
        load_model(str(folder))


def test_more_layers_in_the_config(model_of):
    folder = model_of()
    change_config(folder, n_layer=3)
    with pytest.raises(ValueError, match=r"12 weights \(transformer\.h\.2\.[^)]*, …\) are missing"):
        load_model(str(folder))


def test_fewer_layers_in_the_config(model_of):
    folder = model_of("opt")
    change_config(folder, num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"16 weights \(model\.decoder\.layers\.1\..*, …\) belong to no part"):
        load_model(str(folder))


def test_weights_of_another_architecture(model_of):
    folder = model_of()
    shutil.copy(model_of("opt") / "model.safetensors", folder)
    with pytest.raises(ValueError, match=r"are missing; \d+ weights \(model\.decoder.* belong to no part of the model"):
        load_model(str(folder))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite(model_of, value):
    folder = model_of()
    change_weights(folder, lambda weights: weights["transformer.h.1.mlp.c_fc.weight"].fill_(1)[0].fill_(value))
    with pytest.raises(ValueError, match=r"1 weights \(transformer\.h\.1\.mlp\.c_fc\.weight\) hold NaN or infinity"):
        load_model(str(folder))


def test_weights_out_of_the_range_of_float16(model_of):
    folder = model_of()
    change_weights(folder, lambda weights: weights["transformer.ln_f.weight"].fill_(1e6))
    load_model(str(folder))
    with pytest.raises(ValueError, match=r"ln_f\.weight\) hold NaN or infinity: .* out of the range of float16"):
        load_model(str(folder), dtype="float16")


def test_a_tokenizer_with_more_tokens_than_the_embedding(model_of):
    folder = model_of()
    config = config_of("gpt2", **SMALL)
    GPT2LMHeadModel(config).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ tokens, the model's embedding has 61 rows"):
        load_model(str(folder))


def test_special_tokens_beyond_the_embedding_are_left_alone(model_of):
    folder = model_of()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(folder)
    assert len(load_model(str(folder))[1]) == len(tokenizer)
    tokenizer.add_tokens(["tokenwise"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"they don't match"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("variant", "values", "message"),
    [
        ("gpt2", {"n_layer": 0}, "the config's num_hidden_layers must be a positive integer, not 0"),
        ("gpt2", {"n_layer": 1.5}, r"can't load model .*n_layer.* expected int, got float"),
        ("gpt2", {"n_layer": "three"}, r"can't load model .*n_layer"),
        ("opt", {"num_hidden_layers": -2}, "num_hidden_layers must be a positive integer, not -2"),
        ("gpt2", {"n_head": 0}, r"num_attention_heads must be a positive integer, not 0"),
        ("gpt2", {"n_head": 7}, r"can't read the weights .* must be divisible by num_heads"),
        ("gpt2", {"n_embd": 32}, r"weights .* \(64, 48\)|have another shape"),
        ("gpt2", {"activation_function": "swoosh"}, r"activation_function 'swoosh' is unknown: expected one of gelu"),
        ("opt", {"activation_function": "swoosh"}, r"activation_function 'swoosh' is unknown"),
        ("opt", {"vocab_size": 0}, r"vocab_size must be a positive integer, not 0"),
    ],
)
def test_configs_that_are_no_model(model_of, variant, values, message):
    folder = model_of(variant)
    change_config(folder, **values)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null", b'{"model_type": 3}'])
def test_configs_that_are_damaged(model_of, content):
    folder = model_of()
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"can't load model '.*my-gpt2', the folder must hold config\.json") as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("damage", ["empty", "noise", "half", "code", "text"])
def test_damaged_bin_files(model_of, damage, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = model_of()
    path = folder / "pytorch_model.bin"
    torch.save(load_file(folder / "model.safetensors"), path)
    (folder / "model.safetensors").unlink()
    if damage == "code":
        torch.save({"lm_head.weight": Harmful()}, path)
    else:
        whole = path.read_bytes()
        noise = bytes(range(256)) * 4
        path.write_bytes({"empty": b"", "noise": noise, "half": whole[: len(whole) // 2], "text": b"hello"}[damage])
    with pytest.raises(ValueError, match=r"can't read the weights of '.*my-gpt2', the folder must hold") as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("size", [0, 4, 100, 5000])
def test_truncated_safetensors(model_of, size):
    folder = model_of()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"can't read the weights of '.*my-gpt2'") as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)


def test_a_shard_that_is_missing(model_of):
    folder = model_of()
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(folder / "model.safetensors"), "gone.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"can't read the weights of '.*my-gpt2'"):
        load_model(str(folder))


@pytest.mark.parametrize("device", ["mps", "meta", "cuda:99", "nonsense"])
def test_devices_that_are_not_there(device, monkeypatch):
    """Refused before anything is read."""
    monkeypatch.setattr("decomp.models.loading.load_config", None)
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("the device mps can be used on this machine")
    with pytest.raises(ValueError, match=rf"device '{device}' can't be used here in float32 \(use cpu\): ") as caught:
        load_model("demo-gpt2", device=device)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "method"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes into 8 bits"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes into 4"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq into 4 bits"),
        ({"quant_method": "awq", "bits": 4}, "awq into 4 bits"),
        ({"quant_method": "fp8"}, "fp8, and contributions"),
    ],
)
def test_packed_weights_are_refused(model_of, run, told, method):
    folder = model_of()
    change_config(folder, quantization_config=told)
    with pytest.raises(ValueError, match=f"my-gpt2.*packed by {method}.*use the weights before they were packed"):
        load_model(str(folder))
    assert f"packed by {method}" in refused(run("score", "--text", "A", folder))


@pytest.mark.parametrize(
    ("options", "bits"),
    [({"load_in_8bit": True}, 8), ({"load_in_4bit": True}, 4), ({"quantization_config": {"load_in_4bit": True}}, 4)],
)
def test_packing_is_refused_when_it_is_asked_for(model_of, options, bits):
    with pytest.raises(ValueError, match=f"packed by bitsandbytes into {bits} bits"):
        load_model(str(model_of()), **options)


def test_models_that_others_have_packed():
    _, model = make_pair("opt")
    packed = torch.zeros(model.lm_head.weight.shape, dtype=torch.uint8)
    model.model.decoder.layers[1].fc1.weight = torch.nn.Parameter(packed, requires_grad=False)
    with pytest.raises(ValueError, match=r"packed \(Linear of torch.uint8\).*load it without quantisation"):
        model.decompose(torch.tensor([2, 5, 7]))


def test_device_maps_of_one_device(model_of):
    folder = str(model_of())
    plain, mapped = (load_model(folder, **options)[0] for options in ({}, {"device_map": "cpu"}))
    ids = torch.tensor([2, 5, 7])
    assert_close(mapped.decompose(ids).dense(), plain.decompose(ids).dense(), rtol=0, atol=0)


def test_device_maps_of_several_devices_are_refused(model_of, tmp_path):
    folder, spread = str(model_of()), {"transformer.h.0": "cpu", "transformer.h.1": "disk"}
    spread |= {f"transformer.{name}": "cpu" for name in ("wte", "wpe", "ln_f")} | {"lm_head": "cpu"}
    with pytest.raises(ValueError, match="device_map has put its weights on cpu and the disk: all have to be on one"):
        load_model(folder, device_map=spread, offload_folder=str(tmp_path))


def test_layers_are_named_in_order():
    assert in_order(["h.10.w", "h.2.w", "a"]) == ["a", "h.2.w", "h.10.w"]


@pytest.mark.parametrize("temperature", ["1e-40", "0.009", "nan", "inf"])
def test_temperatures_that_nothing_can_be_sampled_at(run, temperature):
    asked = ("--text", "The cat", "demo-gpt2", "--max-new-tokens", 2, "--sample", "--temperature", temperature)
    limit = (
        "temperature must be above 0" if temperature == "nan" else "the temperature must be at least 0.01 and finite"
    )
    assert f"{limit}, not " in refused(run("score", *asked))


def test_the_lowest_temperature_is_greedy():
    model, _ = load_model("demo-gpt2")
    ids = torch.tensor([0, 5, 17])
    greedy = model.write(ids, 4)
    assert model.write(ids, 4, sample=True, temperature=0.01).tolist() == greedy.tolist()
