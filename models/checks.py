"""Checks when a model is loaded: configs, weights and tokenizers that do not fit are refused by name."""

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import ACT2FN

from decomp.models.families import TESTED_TRANSFORMERS

logger = logging.getLogger(__name__)

COUNTS = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")
ACTIVATIONS = ("activation_function", "hidden_act", "hidden_activation")
HARMLESS = re.compile(r"(\.attn\.(masked_)?bias|\.attention\.(masked_)?bias|rotary_emb\.inv_freq|position_ids)$")
"""The names of buffers that older files hold and transformers computes: causal masks, rotary frequencies."""
SHOWN = 3


@cache
def warn_if_untested(version: str) -> None:
    """Warn, once for each version, of a transformers that the families have not been tested with."""
    if ".".join(version.split(".")[:2]) not in TESTED_TRANSFORMERS:
        logger.warning(
            "transformers %s is not among the versions that decomp is tested with (%s to %s): look at the "
            "completeness gap before you trust a result",
            version,
            TESTED_TRANSFORMERS[0],
            TESTED_TRANSFORMERS[-1],
        )


def check_config(config: Any) -> None:
    """Raise ValueError for a config with a count that is not a positive integer, or with an unknown activation."""
    for name in COUNTS:
        value = getattr(config, name, None)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"the config's {name} must be a positive integer, not {value!r}")
    for name in ACTIVATIONS:
        value = getattr(config, name, None)
        if isinstance(value, str) and value not in ACT2FN:
            raise ValueError(f"the config's {name} {value!r} is unknown: expected one of {', '.join(sorted(ACT2FN))}")


def check_unpacked(config: Any, options: Mapping[str, Any]) -> None:
    """Raise ValueError, which names the method, for weights that are packed into a few bits (quantised).

    Either the config says that the files hold such weights, or `options` of `from_pretrained` ask for them.
    """
    asked = next((name for name in ("load_in_8bit", "load_in_4bit") if options.get(name)), None)
    packed = options.get("quantization_config") or getattr(config, "quantization_config", None)
    if packed is None and asked is None:
        return
    told = packed if isinstance(packed, Mapping) else getattr(packed, "to_dict", dict)()
    bits = told.get("bits") or {"load_in_8bit": 8, "load_in_4bit": 4}.get(asked or "") or packed_bits(told)
    method = str(getattr(told.get("quant_method"), "value", told.get("quant_method") or "bitsandbytes"))
    raise ValueError(
        f"its weights are packed by {method}{f' into {bits} bits' if bits else ''}, and contributions need them as "
        "they are: use the weights before they were packed (dtype bfloat16 halves them), or a GGUF file, which is "
        "unpacked when it is read"
    )


def packed_bits(told: Mapping[str, Any]) -> int | None:
    """Return the bits of each weight that options of the library bitsandbytes ask for; None where they ask for none."""
    return next((bits for bits in (8, 4) if told.get(f"load_in_{bits}bit")), None)


def check_placed(model: PreTrainedModel) -> None:
    """Raise ValueError for weights that a `device_map` has spread over several devices, or left on the disk."""
    devices = sorted({"the disk" if p.is_meta else str(p.device) for p in model.parameters()})
    if len(devices) > 1 or "the disk" in devices:
        raise ValueError(
            f"device_map has put its weights on {' and '.join(devices)}: all have to be on one device; give device_map "
            "that device alone (cpu, cuda:0), and dtype bfloat16 where they are too large for it"
        )


def check_loaded(info: Mapping[str, Iterable[Any]]) -> None:
    """Raise ValueError for loaded weights that do not fit the config; `info` is the report of `from_pretrained`.

    The error names the first few weights that are missing (they would be random), unexpected (they would be dropped)
    or of another shape.
    """
    mismatched = [f"{name} {tuple(came)}, not {tuple(own)}" for name, came, own in sorted(info["mismatched_keys"])]
    unexpected = [name for name in info["unexpected_keys"] if not HARMLESS.search(name)]
    found = {
        "are missing": in_order(info["missing_keys"]),
        "belong to no part of the model": in_order(unexpected),
        "have another shape": mismatched,
    }
    if problems := [f"{listed(names)} {what}" for what, names in found.items() if names]:
        raise ValueError(f"the weights are not those of the config: {'; '.join(problems)}")


def in_order(names: Iterable[str]) -> list[str]:
    """Return names sorted, with the numbers in them as numbers: layer 2 before layer 10."""
    return sorted(names, key=lambda name: [(not part.isdigit(), part.zfill(9)) for part in re.split(r"\.", name)])


def listed(names: Sequence[str]) -> str:
    """Return a text with the number of names and the first few of them."""
    more = ", …" if len(names) > SHOWN else ""
    return f"{len(names)} weights ({', '.join(names[:SHOWN])}{more})"


def check_finite_weights(model: PreTrainedModel) -> None:
    """Raise ValueError, which names the first few, for weights that are NaN or infinite."""
    broken = [name for name, p in model.named_parameters() if not p.is_meta and not p.detach().isfinite().all()]
    if broken:
        raise ValueError(
            f"{listed(broken)} hold NaN or infinity: the file is damaged, or the weights are out of the range of "
            f"{str(model.dtype).removeprefix('torch.')}"
        )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Raise ValueError for a tokenizer with tokens that have no embedding among the `rows` of the model.

    Special tokens beyond them are allowed, since models of text share tokenizers with models of several modalities.
    """
    added = [number for number, token in tokenizer.added_tokens_decoder.items() if not token.special]
    tokens = max([tokenizer.vocab_size, *(number + 1 for number in added)])
    if tokens > rows:
        raise ValueError(f"the tokenizer has {tokens} tokens, the model's embedding has {rows} rows: they don't match")


LOWEST_TEMPERATURE = 0.01
"""The lowest temperature for sampling: logits divided by less may leave the range of float32."""


def check_temperature(temperature: float) -> None:
    """Raise ValueError for a temperature that is too low to sample at, infinite, or not a number."""
    if not LOWEST_TEMPERATURE <= temperature < math.inf:
        raise ValueError(
            f"the temperature must be at least {LOWEST_TEMPERATURE} and finite, not {temperature}: "
            "without --sample (sample=True), each token is the likeliest"
        )


DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parse_dtype(name: str) -> torch.dtype:
    """Return the dtype with a name, such as `float64`. ValueError for one that models can't be computed in."""
    if name not in DTYPES:
        raise ValueError(f"unknown dtype {name!r}: choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def parse_device(name: torch.device | str, dtype: torch.dtype = torch.float32) -> torch.device:
    """Return the device with a name, as `cuda`. ValueError for one that is missing, or can't compute in `dtype`."""
    try:
        # A sum, since some devices that are not there (meta) have empty tensors.
        torch.ones(1, device=name, dtype=dtype).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        why = str(error).strip().partition("\n")[0].partition(". ")[0]
        kind = str(dtype).removeprefix("torch.")
        raise ValueError(f"device {str(name)!r} can't be used here in {kind} (use cpu): {why}") from error
    return torch.device(name)
