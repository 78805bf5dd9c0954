"""Small random models of every variant that a config can express."""

from types import MethodType

import torch
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM, PretrainedConfig, PreTrainedModel

from decomp.models.base import DecomposedModel
from decomp.models.gpt2 import DecomposedGPT2LMHeadModel
from decomp.models.opt import DecomposedOPTForCausalLM
from decomp.models.precision import in_own_precision

VOCAB, POSITIONS = 61, 48

OPT_VARIANTS = {
    "opt": {},
    "opt-post-norm": {"do_layer_norm_before": False, "word_embed_proj_dim": 16},
    "opt-pre-norm-projected": {"word_embed_proj_dim": 16},
    "opt-post-norm-wide": {"do_layer_norm_before": False},
    "opt-no-final-norm": {"_remove_final_layer_norm": True},
    "opt-no-bias": {"enable_bias": False},
    "opt-no-affine": {"layer_norm_elementwise_affine": False},
    "opt-bare-post-norm": {
        "do_layer_norm_before": False,
        "enable_bias": False,
        "layer_norm_elementwise_affine": False,
    },
    "opt-gelu": {"activation_function": "gelu"},
    "opt-untied": {"tie_word_embeddings": False},
}
GPT2_VARIANTS = {
    "gpt2": {},
    "gpt2-inverse-layer": {"scale_attn_by_inverse_layer_idx": True},
    "gpt2-unscaled": {"scale_attn_weights": False},
    "gpt2-narrow": {"n_inner": 20},
    "gpt2-relu": {"activation_function": "relu"},
    "gpt2-tanh": {"activation_function": "tanh"},
}
VARIANTS = [*OPT_VARIANTS, *GPT2_VARIANTS]


def config_of(variant: str, **more: object) -> PretrainedConfig:
    special = {"bos_token_id": 2, "eos_token_id": 2}
    if variant.startswith("gpt2"):
        base = {"vocab_size": VOCAB, "n_positions": POSITIONS, "n_embd": 24, "n_layer": 3, "n_head": 4, **special}
        return GPT2Config(**{**base, **GPT2_VARIANTS.get(variant, {}), **more})
    base = {
        "vocab_size": VOCAB,
        "max_position_embeddings": POSITIONS,
        "hidden_size": 24,
        "word_embed_proj_dim": 24,
        "ffn_dim": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "pad_token_id": 1,
        **special,
    }
    return OPTConfig(**{**base, **OPT_VARIANTS.get(variant, {}), **more})


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
    """The plain model with eager attention and the decomposed one, same weights."""
    config = config_of(variant, **more)
    gpt2 = variant.startswith("gpt2")
    plain = (GPT2LMHeadModel if gpt2 else OPTForCausalLM)._from_config(config, attn_implementation="eager")
    plain = in_double(plain.to(torch.float64).eval())
    roughen(plain, seed)
    decomposed = (DecomposedGPT2LMHeadModel if gpt2 else DecomposedOPTForCausalLM)(config_of(variant, **more))
    decomposed = decomposed.to(torch.float64).eval()
    decomposed.load_state_dict(plain.state_dict())
    return plain.to(dtype), decomposed.to(dtype)


def in_double(plain: PreTrainedModel) -> PreTrainedModel:
    """The plain model without its roundings to float32 in float64, which would hide errors below 1e-7."""
    for model in (plain, plain.base_model):
        model.forward = MethodType(in_own_precision(type(model).forward), model)
    return plain


def random_ids(length: int, seed: int = 1) -> torch.Tensor:
    ids = torch.randint(4, VOCAB, (length,), generator=torch.Generator().manual_seed(seed))
    ids[0] = 2
    return ids
