"""From a model's name to a decomposed model and its tokenizer."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

import decomp
from decomp.models.base import DecomposedModel
from decomp.models.gpt2 import DecomposedGPT2LMHeadModel
from decomp.models.opt import DecomposedOPTForCausalLM

ARCHITECTURES: dict[str, type[DecomposedModel]] = {
    "opt": DecomposedOPTForCausalLM,
    "gpt2": DecomposedGPT2LMHeadModel,
}
"""Decomposed class by `model_type` of the config."""

DATA = Path(decomp.__file__).parent / "data"
DEMO_MODELS: dict[str, str] = {
    "demo-opt": "6 layers, 192 wide, ReLU, trained on 22 English novels",
    "demo-gpt2": "6 layers, 192 wide, GELU, trained on 22 English novels",
}


def resolve(name: str) -> str:
    """Where a model is: a demo model's folder, or the name itself. A folder of that name in reach comes first."""
    return str(DATA / name) if name in DEMO_MODELS and not Path(name).is_dir() else name


def load_config(name: str, revision: str | None = None) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(resolve(name), revision=revision or "main")
    except (OSError, ValueError) as error:
        raise ValueError(f"can't load model {name!r}, {what_is_needed(name)} ({first_line(error)})") from error


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """ValueError where there is none."""
    failed = f"can't load the tokenizer of {name!r}, {what_is_needed(name)}"
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve(name), revision=revision or "main")
    except Exception as error:  # tokenizers raise bare Exception on broken files
        raise ValueError(f"{failed} ({first_line(error)})") from error
    if tokenizer.vocab_size == 0:  # what transformers makes of a folder without tokenizer files
        raise ValueError(failed)
    return tokenizer


def load_model(
    name: str,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str | None = None,
    revision: str | None = None,
    **options: Any,
) -> tuple[DecomposedModel, PreTrainedTokenizerBase]:
    """The decomposed model and the tokenizer of a hub id, a local folder or a demo model.

    `options` go to `from_pretrained`. ValueError for a model that can't be found or read, or whose
    architecture is not supported (`ARCHITECTURES`).
    """
    config = load_config(name, revision)
    if config.model_type not in ARCHITECTURES:
        raise ValueError(
            f"{name!r} is of type {config.model_type!r}, which can't be decomposed: "
            f"supported are {', '.join(ARCHITECTURES)}"
        )
    if isinstance(dtype, str):
        dtype = parse_dtype(dtype)
    try:
        model = ARCHITECTURES[config.model_type].from_pretrained(
            resolve(name), dtype=dtype, revision=revision or "main", **options
        )
    except (OSError, SafetensorError, EOFError) as error:
        raise ValueError(f"can't read the weights of {name!r}, {what_is_needed(name)} ({first_line(error)})") from error
    return model.to(parse_device(device)) if device is not None else model, load_tokenizer(name, revision)


def what_is_needed(name: str) -> str:
    if Path(name).is_dir():
        return "the folder must hold config.json, weights (.safetensors or .bin) and tokenizer files"
    return f"expected a hub id, a folder, or a demo model ({', '.join(DEMO_MODELS)})"


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parse_dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ValueError(f"unknown dtype {name!r}: choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def parse_device(name: torch.device | str) -> torch.device:
    """ValueError for a device that is not there."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} can't be used here: {first_line(error)}") from error
    return torch.device(name)
