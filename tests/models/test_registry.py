"""Which class decomposes a model: shipped families, registered classes, installed ones, and what is near."""

import json
import re
from importlib import import_module
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest
from transformers import CONFIG_MAPPING, GPT2Config

import decomp
from decomp.models import checks, load_model, registry
from decomp.models.base import DecomposedModel
from decomp.models.families import FAMILIES, Family
from decomp.models.gpt2 import DecomposedGPT2LMHeadModel
from decomp.models.registry import class_of, nearest_family


class TwinConfig(GPT2Config):
    model_type = "my-twin"


class DecomposedTwin(DecomposedGPT2LMHeadModel):
    config_class = TwinConfig


@pytest.fixture
def _as_it_was():
    """Nothing that a test registers is left."""
    yield
    registry.REGISTERED.clear()
    registry.register_installed.cache_clear()
    CONFIG_MAPPING._extra_content.pop("my-twin", None)


@pytest.fixture
def twin(tmp_path):
    """The folder of a model of type `my-twin`."""
    model, tokenizer = load_model("demo-gpt2")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "my-twin"}))
    return str(tmp_path)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_the_table_tells_the_truth(family):
    model_class = class_of(SimpleNamespace(model_type=family.model_type))
    assert issubclass(model_class, DecomposedModel)
    assert model_class.config_class.model_type == family.model_type
    config = model_class.config_class()
    assert registry.shared_traits(family, config) == list(family.traits)
    assert nearest_family(config)[0] is family
    assert all(vars(family).values())


@pytest.mark.usefixtures("_as_it_was")
def test_a_class_of_ones_own(twin):
    with pytest.raises(ValueError, match=r"can't load model .*my-twin"):
        load_model(twin)
    decomp.register(TwinConfig, DecomposedTwin)
    model, _ = load_model(twin)
    assert type(model) is DecomposedTwin
    decomp.register(TwinConfig, DecomposedTwin)
    assert registry.model_types()[-1] == "my-twin"


def test_what_cannot_be_registered():
    with pytest.raises(ValueError, match=r"expected a subclass of decomp\.models\.base\.DecomposedModel, not dict"):
        decomp.register(TwinConfig, dict)
    with pytest.raises(ValueError, match=r"expected a config class of transformers with a model_type, not dict"):
        decomp.register(dict, DecomposedTwin)


def installed(monkeypatch, value):
    point = EntryPoint("my-twin", value, "decomp.models")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "decomp.models" else [])
    registry.register_installed.cache_clear()


@pytest.mark.usefixtures("_as_it_was")
def test_a_class_of_an_installed_package(twin, monkeypatch):
    monkeypatch.setitem(import_module("sys").modules, "my_package", SimpleNamespace(Twin=DecomposedTwin))
    installed(monkeypatch, "my_package:Twin")
    assert registry.model_types() == [*(family.model_type for family in FAMILIES), "my-twin"]
    assert type(load_model(twin)[0]) is DecomposedTwin


@pytest.mark.usefixtures("_as_it_was")
def test_an_installed_package_that_is_broken(monkeypatch):
    installed(monkeypatch, "no_such_package:Twin")
    with pytest.raises(ValueError, match=r"entry point my-twin = no_such_package:Twin of decomp\.models can't be used"):
        load_model("demo-gpt2")


def test_the_nearest_family(monkeypatch):
    llama = Family("llama", "", "", (), "", "", "", "", ("rms_norm_eps", "rope_parameters", "num_key_value_heads"))
    monkeypatch.setattr(registry, "FAMILIES", (*(f for f in FAMILIES if f.model_type in ("opt", "gpt2")), llama))
    for model_type in ("mistral", "qwen2", "gemma", "granite"):
        near, shared = nearest_family(CONFIG_MAPPING[model_type]())
        assert (near.model_type, shared) == ("llama", list(llama.traits))
    assert nearest_family(CONFIG_MAPPING["gpt_bigcode"]())[0].model_type == "gpt2"
    assert nearest_family(CONFIG_MAPPING["xglm"]())[0].model_type in ("opt", "gpt2")
    with pytest.raises(
        ValueError,
        match=r"type 'granite' can't be decomposed: supported are opt, gpt2, llama; the nearest is llama \(its config "
        r"also has rms_norm_eps, rope_parameters, num_key_value_heads\); decomp\.register takes a class of your own",
    ):
        class_of(CONFIG_MAPPING["granite"]())


@pytest.mark.parametrize(
    ("model_type", "nearest"),
    [
        *(("granite", "llama"), ("cohere", "llama"), ("stablelm", "llama"), ("smollm3", "llama"), ("glm", "llama")),
        *(("olmo3", "olmo2"), ("gemma3", "gemma3_text"), ("qwen2_moe", "qwen3_moe"), ("phimoe", "phi3")),
        *(("gpt_bigcode", "gpt2"), ("codegen", "gptj"), ("xglm", "opt")),
    ],
)
def test_the_nearest_of_all_families(model_type, nearest):
    config = CONFIG_MAPPING[model_type]()
    assert nearest_family(config)[0].model_type == nearest
    with pytest.raises(ValueError, match=rf"type '{model_type}' can't be decomposed: .* the nearest is {nearest}\b"):
        class_of(config)


@pytest.mark.parametrize("version", ["5.19.3", "5.24.0.dev0", "6.0.1"])
def test_untested_versions_of_transformers_are_warned_of(version, monkeypatch, caplog):
    checks.warn_if_untested.cache_clear()
    monkeypatch.setattr("decomp.models.loading.transformers.__version__", version)
    for _ in range(2):
        load_model("demo-gpt2")
    (message,) = caplog.messages
    assert re.match(rf"transformers {re.escape(version)} is not among the versions .* tested with \(5\.20 to ", message)


def test_the_installed_version_of_transformers_is_tested(caplog):
    checks.warn_if_untested.cache_clear()
    load_model("demo-gpt2")
    assert not caplog.messages


def test_models_answers_with_all_families(done):
    lines = done("models").splitlines()
    for family in FAMILIES:
        at = lines.index(f"{family.model_type}: {family.name}")
        assert lines[at + 1 : at + 6] == [
            f"  examples   {', '.join(family.examples)}",
            f"  frozen     {family.frozen}",
            f"  rules      {family.rules}",
            f"  positions  {family.positions}",
            f"  verified   {family.verified}",
        ]
    assert "Tested with transformers 5.20, 5.21, 5.22, 5.23." in lines
    assert any(line.startswith("  demo-opt") for line in lines)
