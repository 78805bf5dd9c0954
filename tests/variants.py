"""Small random models of every architecture, and of every variant that its config can express.

They have two layers: a first one, which reads embeddings, and one that reads another's output, of each kind that
alternates. `deep` makes them three, for tests of what a layer between the first and the last adds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel

from decomp.models.base import DecomposedModel
from decomp.models.bloom import DecomposedBloomForCausalLM
from decomp.models.gemma import (
    DecomposedGemma2ForCausalLM,
    DecomposedGemma3ForCausalLM,
    DecomposedGemmaForCausalLM,
)
from decomp.models.gpt2 import DecomposedGPT2LMHeadModel
from decomp.models.gpt_neo import DecomposedGPTNeoForCausalLM
from decomp.models.gpt_neox import DecomposedGPTNeoXForCausalLM
from decomp.models.gptj import DecomposedGPTJForCausalLM
from decomp.models.llama import (
    DecomposedLlamaForCausalLM,
    DecomposedMistralForCausalLM,
    DecomposedQwen2ForCausalLM,
    DecomposedQwen3ForCausalLM,
)
from decomp.models.mixtral import (
    DecomposedMixtralForCausalLM,
    DecomposedOlmoeForCausalLM,
    DecomposedQwen3MoeForCausalLM,
)
from decomp.models.olmo2 import DecomposedOlmo2ForCausalLM
from decomp.models.opt import DecomposedOPTForCausalLM
from decomp.models.phi import DecomposedPhiForCausalLM
from decomp.models.phi3 import DecomposedPhi3ForCausalLM
from decomp.models.running import alone
from decomp.models.starcoder2 import DecomposedStarcoder2ForCausalLM
from tests.sharing import shared

VOCAB, POSITIONS = 61, 48
SPECIAL = {"bos_token_id": 2, "eos_token_id": 2}
OPT = {
    "vocab_size": VOCAB,
    "max_position_embeddings": POSITIONS,
    "hidden_size": 24,
    "word_embed_proj_dim": 24,
    "ffn_dim": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 1,
    **SPECIAL,
}
GPT2 = {"vocab_size": VOCAB, "n_positions": POSITIONS, "n_embd": 24, "n_layer": 2, "n_head": 4, **SPECIAL}
LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 1,
    **SPECIAL,
}
GPT_NEOX = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "rotary_pct": 0.5,
    "pad_token_id": 1,
    **SPECIAL,
}
GPTJ = {
    "vocab_size": VOCAB,
    "n_positions": POSITIONS,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "rotary_dim": 4,
    **SPECIAL,
}
GPT_NEO = {
    "vocab_size": VOCAB,
    "max_position_embeddings": POSITIONS,
    "hidden_size": 24,
    "num_layers": 2,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 5,
    **SPECIAL,
}
# Six heads, so that ALiBi's slopes are not the powers of one number.
BLOOM = {"vocab_size": VOCAB, "hidden_size": 24, "n_layer": 2, "n_head": 6, "seq_length": POSITIONS, **SPECIAL}
GEMMA = {**LLAMA, "head_dim": 8, "sliding_window": 5}
CAPS = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
"""Low enough that they bend the scores and logits of random weights."""


@dataclass(frozen=True)
class Architecture:
    """A transformers architecture by its classes' names, our class, a small config and what differs in variants."""

    config: str
    plain: str
    decomposed: type[DecomposedModel]
    base: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By what stands after the architecture's name: "" is the base itself."""


ARCHITECTURES = {
    "opt": Architecture(
        "OPTConfig",
        "OPTForCausalLM",
        DecomposedOPTForCausalLM,
        OPT,
        {
            "-post-norm": {"do_layer_norm_before": False, "word_embed_proj_dim": 16},
            "-pre-norm-projected": {"word_embed_proj_dim": 16},
            "-post-norm-wide": {"do_layer_norm_before": False},
            "-no-final-norm": {"_remove_final_layer_norm": True},
            "-no-bias": {"enable_bias": False},
            "-no-affine": {"layer_norm_elementwise_affine": False},
            "-bare-post-norm": {
                "do_layer_norm_before": False,
                "enable_bias": False,
                "layer_norm_elementwise_affine": False,
            },
            "-gelu": {"activation_function": "gelu"},
            "-untied": {"tie_word_embeddings": False},
        },
    ),
    "gpt2": Architecture(
        "GPT2Config",
        "GPT2LMHeadModel",
        DecomposedGPT2LMHeadModel,
        GPT2,
        {
            "-inverse-layer": {"scale_attn_by_inverse_layer_idx": True},
            "-unscaled": {"scale_attn_weights": False},
            "-narrow": {"n_inner": 20},
            "-relu": {"activation_function": "relu"},
            "-tanh": {"activation_function": "tanh"},
        },
    ),
    "gpt_neox": Architecture(
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        DecomposedGPTNeoXForCausalLM,
        GPT_NEOX,
        {
            "-sequential": {"use_parallel_residual": False},
            "-no-bias": {"attention_bias": False, "hidden_act": "relu"},
            "-all-rotary": {"rotary_pct": 1.0, "tie_word_embeddings": True},
        },
    ),
    "gptj": Architecture(
        "GPTJConfig",
        "GPTJForCausalLM",
        DecomposedGPTJForCausalLM,
        GPTJ,
        {
            "-narrow": {"n_inner": 20, "activation_function": "relu"},
            "-all-rotary": {"rotary_dim": 8},
        },
    ),
    "gpt_neo": Architecture(
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        DecomposedGPTNeoForCausalLM,
        GPT_NEO,
        {
            "-global": {"attention_types": [[["global"], 2]]},
            "-local": {"attention_types": [[["local"], 2]], "window_size": 3},
            "-narrow": {"intermediate_size": 20, "activation_function": "relu", "tie_word_embeddings": False},
        },
    ),
    "bloom": Architecture(
        "BloomConfig",
        "BloomForCausalLM",
        DecomposedBloomForCausalLM,
        BLOOM,
        {
            "-sliced": {"n_head": 4, "pretraining_tp": 2, "tie_word_embeddings": False},
        },
    ),
    "llama": Architecture(
        "LlamaConfig",
        "LlamaForCausalLM",
        DecomposedLlamaForCausalLM,
        LLAMA,
        {
            "-biased": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4},
            "-tied": {
                "tie_word_embeddings": True,
                "head_dim": 10,
                "num_key_value_heads": 1,
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 10_000.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8,
                },
            },
        },
    ),
    "mistral": Architecture(
        "MistralConfig",
        "MistralForCausalLM",
        DecomposedMistralForCausalLM,
        {**LLAMA, "sliding_window": 5},
        {"-global": {"sliding_window": None, "head_dim": 10}},
    ),
    "qwen2": Architecture(
        "Qwen2Config",
        "Qwen2ForCausalLM",
        DecomposedQwen2ForCausalLM,
        LLAMA,
        {"-window": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}},
    ),
    "qwen3": Architecture(
        "Qwen3Config",
        "Qwen3ForCausalLM",
        DecomposedQwen3ForCausalLM,
        {**LLAMA, "head_dim": 8},
        {
            "-window": {
                "attention_bias": True,
                "use_sliding_window": True,
                "sliding_window": 5,
                "max_window_layers": 1,
            }
        },
    ),
    "gemma": Architecture(
        "GemmaConfig",
        "GemmaForCausalLM",
        DecomposedGemmaForCausalLM,
        {**LLAMA, "head_dim": 8},
        {"-biased": {"attention_bias": True, "num_key_value_heads": 1, "tie_word_embeddings": False}},
    ),
    "gemma2": Architecture(
        "Gemma2Config",
        "Gemma2ForCausalLM",
        DecomposedGemma2ForCausalLM,
        {**GEMMA, **CAPS, "query_pre_attn_scalar": 16},
        {
            "-uncapped": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
            "-biased": {"attention_bias": True, "layer_types": ["full_attention"] * 2},
        },
    ),
    "gemma3": Architecture(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        DecomposedGemma3ForCausalLM,
        {**GEMMA, "sliding_window_pattern": 2},
        {"-capped": CAPS, "-scaled": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}},
    ),
    "olmo2": Architecture(
        "Olmo2Config",
        "Olmo2ForCausalLM",
        DecomposedOlmo2ForCausalLM,
        LLAMA,
        {
            "-biased-yarn": {
                "attention_bias": True,
                "num_key_value_heads": 4,
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 10_000.0,
                    "factor": 4.0,
                    "original_max_position_embeddings": 12,
                },
            }
        },
    ),
    "mixtral": Architecture(
        "MixtralConfig",
        "MixtralForCausalLM",
        DecomposedMixtralForCausalLM,
        {**LLAMA, "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 5},
        {"-one-expert": {"num_experts_per_tok": 1, "sliding_window": None}},
    ),
    "olmoe": Architecture(
        "OlmoeConfig",
        "OlmoeForCausalLM",
        DecomposedOlmoeForCausalLM,
        {**LLAMA, "num_experts": 6, "num_experts_per_tok": 3},
        {"-renormalised": {"norm_topk_prob": True}},
    ),
    "qwen3_moe": Architecture(
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        DecomposedQwen3MoeForCausalLM,
        {
            **LLAMA,
            "head_dim": 8,
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 16,
            "mlp_only_layers": [1],
            "norm_topk_prob": True,
        },
    ),
    "phi": Architecture(
        "PhiConfig",
        "PhiForCausalLM",
        DecomposedPhiForCausalLM,
        {**LLAMA, "partial_rotary_factor": 0.5, "hidden_size": 32},
        {"-qk-norm": {"qk_layernorm": True}, "-shared": {"num_key_value_heads": 1, "tie_word_embeddings": True}},
    ),
    "phi3": Architecture(
        "Phi3Config",
        "Phi3ForCausalLM",
        DecomposedPhi3ForCausalLM,
        LLAMA,
        {
            "-window": {"sliding_window": 5, "tie_word_embeddings": True},
            # Of its two regimes of rotations, the one of long texts.
            "-partial-long": {
                "hidden_size": 32,
                "partial_rotary_factor": 0.5,
                "num_key_value_heads": 4,
                "original_max_position_embeddings": 2,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 10_000.0,
                    "factor": 24.0,
                    "original_max_position_embeddings": 2,
                    "short_factor": [1.0, 1.5],
                    "long_factor": [2.0, 3.0],
                },
            },
        },
    ),
    "starcoder2": Architecture(
        "Starcoder2Config",
        "Starcoder2ForCausalLM",
        DecomposedStarcoder2ForCausalLM,
        {**LLAMA, "sliding_window": 5},
        {"-no-bias": {"use_bias": False, "sliding_window": None, "tie_word_embeddings": False}},
    ),
}
ARCHITECTURE_OF = {
    name + suffix: (name, suffix) for name, own in ARCHITECTURES.items() for suffix in ("", *own.variants)
}
EVERY = list(ARCHITECTURE_OF)
"""Every variant of every architecture: for the tests of exactness."""
VARIANTS = [v for v, (name, _) in ARCHITECTURE_OF.items() if name in ("opt", "gpt2")]
"""For tests of features that do not look into the network."""
FAMILIES = list(ARCHITECTURES)
"""One variant of each architecture."""


def deep(variant: str) -> dict[str, object]:
    """What differs in the config of a variant with a third layer, whose attention is that of the first."""
    name, suffix = ARCHITECTURE_OF[variant]
    config = {**ARCHITECTURES[name].base, **ARCHITECTURES[name].variants.get(suffix, {})}
    more: dict[str, object] = {each: 3 for each in ("num_hidden_layers", "n_layer", "num_layers") if each in config}
    if "attention_types" in config:
        (((first, *_), _),) = config["attention_types"]
        more["attention_types"] = [*config["attention_types"], [[first], 1]]
    if "layer_types" in config:
        more["layer_types"] = [*config["layer_types"], config["layer_types"][0]]
    return more


def config_of(variant: str, **more: object) -> PretrainedConfig:
    name, suffix = ARCHITECTURE_OF[variant]
    own = ARCHITECTURES[name]
    return getattr(transformers, own.config)(**{**own.base, **own.variants.get(suffix, {}), **more})


@torch.no_grad()
def roughen(model: PreTrainedModel, seed: int = 0) -> None:
    """Weights large enough that every term counts: the initial ones leave biases and norms trivial."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.add_(noise.to(parameter.dtype), alpha=0.2)


def make_pair(
    variant: str, dtype: torch.dtype = torch.float64, seed: int = 0, **more: object
) -> tuple[PreTrainedModel, DecomposedModel]:
    """The plain model with eager attention and the decomposed one, same weights; a test may change its own."""

    def make() -> tuple[PreTrainedModel, DecomposedModel]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return made_pair(variant, dtype, seed, **more)

    return shared((variant, dtype, seed, repr(more)), make)


def made_pair(variant: str, dtype: torch.dtype, seed: int, **more: object) -> tuple[PreTrainedModel, DecomposedModel]:
    own = ARCHITECTURES[ARCHITECTURE_OF[variant][0]]
    plain = getattr(transformers, own.plain)._from_config(config_of(variant, **more), attn_implementation="eager")
    plain.config._experts_implementation = "eager"
    plain = in_double(plain.to(torch.float64).eval())
    roughen(plain, seed)
    decomposed = own.decomposed(config_of(variant, **more)).to(torch.float64).eval()
    decomposed.load_state_dict(plain.state_dict())
    return plain.to(dtype), decomposed.to(dtype)


def in_double(plain: PreTrainedModel) -> PreTrainedModel:
    """The plain model without its roundings to float32 in float64, which would hide errors below 1e-7."""
    for model in (plain, plain.base_model):
        model.forward = MethodType(alone(type(model).forward), model)
    return plain


def random_ids(length: int, seed: int = 1) -> torch.Tensor:
    ids = torch.randint(4, VOCAB, (length,), generator=torch.Generator().manual_seed(seed))
    ids[0] = 2
    return ids
