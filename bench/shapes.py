"""Models of published shapes with random weights, and with as many open gates as asked for."""

import click
import torch
from transformers import GPT2Config, LlamaConfig, OPTConfig

from decomp.models.base import DecomposedModel
from decomp.models.gpt2 import DecomposedGPT2LMHeadModel
from decomp.models.llama import DecomposedLlamaForCausalLM
from decomp.models.opt import DecomposedOPTForCausalLM

OPT_SHAPES = {"opt-125m": (768, 12, 12), "opt-1.3b": (2048, 24, 32)}
LLAMA = LlamaConfig(
    hidden_size=768,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=12,
    num_key_value_heads=4,
    max_position_embeddings=2048,
)
SHAPES = (*OPT_SHAPES, "gpt2", "llama")


def check_length(shape: str, model: DecomposedModel, length: int) -> None:
    """Raise ClickException, which names a longer shape, for a text longer than a model's positions."""
    if length > (positions := model.max_length()):
        raise click.ClickException(
            f"{shape} has {positions:,} positions, fewer than --length {length:,}: take --shape opt-125m, which has "
            "2,048, or a shorter text"
        )


def make_model(shape: str, active: float = 1.0, seed: int = 0) -> DecomposedModel:
    """Return a model in evaluation mode; in an OPT a share of about `active` of the neurons have a positive input."""
    torch.manual_seed(seed)
    if shape == "gpt2":
        return DecomposedGPT2LMHeadModel(GPT2Config()).eval()
    if shape == "llama":
        return DecomposedLlamaForCausalLM(LLAMA).eval()
    width, layers, heads = OPT_SHAPES[shape]
    config = OPTConfig(
        hidden_size=width,
        word_embed_proj_dim=width,
        ffn_dim=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=2048,
    )
    model = DecomposedOPTForCausalLM(config).eval()
    # The MLP's input is normalised, so its pre-activations are normal with this deviation.
    deviation = config.init_std * width**0.5
    shift = 100.0 if active >= 1 else float(torch.distributions.Normal(0, 1).icdf(torch.tensor(active)))
    with torch.no_grad():
        for block in model.blocks():
            block.fc1.bias.fill_(shift * deviation)
    return model
