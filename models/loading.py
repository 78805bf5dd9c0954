"""Loading a model that can be decomposed, with its tokenizer, by name."""

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from decomp.models.base import DecomposedModel
from decomp.models.checks import (
    check_config,
    check_finite_weights,
    check_loaded,
    check_placed,
    check_tokenizer,
    check_unpacked,
    parse_device,
    parse_dtype,
    warn_if_untested,
)
from decomp.models.gguf_reading import read_once
from decomp.models.registry import class_of, register_installed
from decomp.models.sources import Source, check_revision, named, source_of


def load_model(
    name: str,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str | None = None,
    revision: str | None = None,
    **options: Any,
) -> tuple[DecomposedModel, PreTrainedTokenizerBase]:
    """Load a model that can be decomposed, and its tokenizer.

    `name` is a hub id, a local folder, a GGUF file, or a demo model that is shipped with the package; `options` go to
    transformers' `from_pretrained`. ValueError for a model that can't be found or read, whose architecture is not
    supported, or whose weights or tokenizer do not fit its config. A version of transformers that the package has not
    been tested with is warned of once.

        >>> import decomp
        >>> model, tokenizer = decomp.load_model("demo-opt", dtype="float64")
        >>> model.dtype, len(tokenizer)
        (torch.float64, 4096)
    """
    warn_if_untested(transformers.__version__)
    dtype = parse_dtype(dtype) if isinstance(dtype, str) else dtype
    place = None if device is None else parse_device(device, dtype)
    with read_once() if source_of(name).gguf_file else nullcontext():
        model, tokenizer = load_both(name, dtype, revision, options)
    return model if place is None else model.to(place), tokenizer


def load_both(
    name: str, dtype: torch.dtype, revision: str | None, options: Mapping[str, Any]
) -> tuple[DecomposedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer, and check that they fit each other and the config."""
    check_revision(name, revision)
    config = load_config(name, revision)
    with named(name):
        model_class = class_of(config)
        check_config(config)
        if not source_of(name).gguf_file:
            check_unpacked(config, options)
    model, info = load_weights(source_of(name), model_class, config, dtype=dtype, revision=revision, **options)
    tokenizer = load_tokenizer(name, revision)
    with named(name):
        check_loaded(info)
        check_placed(model)
        check_finite_weights(model)
        check_tokenizer(tokenizer, len(model.get_input_embeddings().weight))
    return model, tokenizer


def load_config(name: str, revision: str | None = None) -> PreTrainedConfig:
    """Load the config of a model. ValueError where it is missing or not valid."""
    register_installed()
    source = source_of(name)
    try:
        return AutoConfig.from_pretrained(source.place, **source.options(revision))
    except Exception as error:  # the classes of configs raise errors of many types
        raise source.failure("load model", error) from error


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model. ValueError where it is missing."""
    source = source_of(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.place, **source.options(revision))
    except Exception as error:  # tokenizers raise bare Exception on broken files
        raise source.failure("load the tokenizer of", error) from error
    if tokenizer.vocab_size == 0:  # what transformers makes of a folder without tokenizer files
        raise source.failure("load the tokenizer of")
    return tokenizer


def load_weights(
    source: Source,
    model_class: type[DecomposedModel],
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype,
    revision: str | None,
    **options: Any,
) -> tuple[DecomposedModel, dict[str, Any]]:
    """Load a model's weights, those of a GGUF file dequantised; return it with transformers' report for `check_loaded`.

    ValueError for weights that can't be read.
    """
    if source.gguf_file:
        options = {**unpacked(), "config": copy.deepcopy(config), **options}
    told = {"dtype": dtype, "weights_only": True, **source.options(revision), **options}
    # So that they are listed by name with the others.
    told |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        model, info = model_class.from_pretrained(source.place, **told)
    except Exception as error:  # unpickling and building models raise errors of many types
        raise source.failure("read the weights of", error) from error
    if source.gguf_file:
        forget_quantisation(model)
        model.name_or_path = model.config.name_or_path = source.name
        model.weights_note = "dequantised from GGUF"
    return model, info


def unpacked() -> dict[str, Any]:
    """Return the option by which newer versions of transformers unpack the weights of a GGUF file."""
    config_class = getattr(transformers, "GgufConfig", None)
    return {} if config_class is None else {"quantization_config": config_class(dequantize=True)}


def forget_quantisation(model: DecomposedModel) -> None:
    """Remove the mark of a quantised model from one whose weights have been dequantised, so that it can be saved."""
    for name in ("hf_quantizer", "quantization_method"):
        model.__dict__.pop(name, None)
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def tokens_by(model: str) -> Callable[[Any], tuple[bool, tuple[str, ...]]]:
    """Return a function from token ids to their strings, by a model's tokenizer, which is loaded at the first call.

    It returns whether the first id is the beginning-of-sequence token, and the strings of all ids. ValueError for ids
    that the tokenizer does not have.
    """

    @cache
    def opened() -> tuple[Any, set[int | None]]:
        tokenizer = load_tokenizer(model)
        return tokenizer, {tokenizer.bos_token_id, getattr(load_config(model), "bos_token_id", None)}

    def tokens_of(ids: Any) -> tuple[bool, tuple[str, ...]]:
        tokenizer, beginnings = opened()
        if int(ids.max()) >= len(tokenizer):
            raise ValueError(f"token {int(ids.max())} is unknown to {model}, which has {len(tokenizer)}: another model")
        return int(ids[0]) in beginnings, tuple(tokenizer.convert_ids_to_tokens(ids.tolist()))

    return tokens_of
