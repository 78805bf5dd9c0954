"""Phi 3 and 4 (Abdin et al. 2024): Llama's blocks with joint projections to queries, keys, values, and gate and up."""

from typing import Any

from transformers import Phi3ForCausalLM

from decomp.models.base import DecomposedModel
from decomp.models.sites import AttentionSite, MLPSite, Projection, StageSite


def joint_attention(attn: Any) -> AttentionSite:
    """Return the places of the weights of an attention with one map to queries, keys and values, in this order."""
    heads, kv_heads = attn.config.num_attention_heads, attn.num_key_value_heads
    edges = [0, *(attn.head_dim * count for count in (heads, heads + kv_heads, heads + 2 * kv_heads))]
    query, key, value = (Projection(attn.qkv_proj, slice(*edges[i : i + 2])) for i in range(3))
    return AttentionSite(attn, query, key, value, attn.o_proj, heads, kv_heads)


def joint_mlp(mlp: Any) -> MLPSite:
    """Return the places of the weights of a gated MLP with one map to `gate` and `up`, in this order."""
    neurons = mlp.down_proj.in_features
    gate, up = Projection(mlp.gate_up_proj, slice(neurons)), Projection(mlp.gate_up_proj, slice(neurons, None))
    return MLPSite(up, mlp.down_proj, mlp.activation_fn, gate=gate)


class DecomposedPhi3ForCausalLM(DecomposedModel, Phi3ForCausalLM):
    """`Phi3ForCausalLM` whose hidden states can be decomposed by source token."""

    def stages(self, block: Any) -> tuple[StageSite, ...]:
        """Return where a block keeps its weights."""
        return (
            StageSite.of(joint_attention(block.self_attn), block.input_layernorm),
            StageSite.of(joint_mlp(block.mlp), block.post_attention_layernorm),
        )
