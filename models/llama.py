"""Llama (Touvron et al. 2023) and the families of its shape: Mistral, Qwen 2 and 3, SmolLM."""

from typing import Any

from torch import nn
from transformers import LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM

from decomp.models.base import DecomposedModel
from decomp.models.sites import AttentionSite, MLPSite, Projection, StageSite


def rotary_attention(attn: Any) -> AttentionSite:
    """Return the places of an attention's weights: separate maps to queries, keys and values."""
    query, key, value = (Projection(p) for p in (attn.q_proj, attn.k_proj, attn.v_proj))
    heads, kv_heads = (p.out_features // attn.head_dim for p in (attn.q_proj, attn.k_proj))
    output: nn.Module = attn.o_proj if hasattr(attn, "o_proj") else attn.dense
    return AttentionSite(attn, query, key, value, output, heads, kv_heads)


def gated_mlp(mlp: Any) -> MLPSite:
    """Return the places of the weights of a gated MLP `down(φ(gate(x)) ⊙ up(x))`."""
    return MLPSite(Projection(mlp.up_proj), mlp.down_proj, mlp.act_fn, gate=Projection(mlp.gate_proj))


class LlamaShaped(DecomposedModel):
    """A mixin for models whose blocks have rotary attention and a gated MLP, with an RMSNorm before each."""

    def stages(self, block: Any) -> tuple[StageSite, ...]:
        """Return where a block keeps its weights."""
        return (
            StageSite.of(rotary_attention(block.self_attn), block.input_layernorm),
            StageSite.of(gated_mlp(block.mlp), block.post_attention_layernorm),
        )


class DecomposedLlamaForCausalLM(LlamaShaped, LlamaForCausalLM):
    """`LlamaForCausalLM` (Llama 2 and 3, SmolLM) whose hidden states can be decomposed by source token."""


class DecomposedMistralForCausalLM(LlamaShaped, MistralForCausalLM):
    """`MistralForCausalLM` (sliding window) whose hidden states can be decomposed by source token."""


class DecomposedQwen2ForCausalLM(LlamaShaped, Qwen2ForCausalLM):
    """`Qwen2ForCausalLM` whose hidden states can be decomposed by source token."""


class DecomposedQwen3ForCausalLM(LlamaShaped, Qwen3ForCausalLM):
    """`Qwen3ForCausalLM` (query and key norms) whose hidden states can be decomposed by source token."""
