"""StarCoder 2 (Lozhkov et al. 2024): LayerNorms and biases, rotary positions, a plain MLP, sliding window."""

from typing import Any

from transformers import Starcoder2ForCausalLM

from decomp.models.base import DecomposedModel
from decomp.models.llama import rotary_attention
from decomp.models.sites import MLPSite, Projection, StageSite


class DecomposedStarcoder2ForCausalLM(DecomposedModel, Starcoder2ForCausalLM):
    """`Starcoder2ForCausalLM` whose hidden states can be decomposed by source token."""

    def stages(self, block: Any) -> tuple[StageSite, ...]:
        """Return where a block keeps its weights."""
        mlp = block.mlp
        return (
            StageSite.of(rotary_attention(block.self_attn), block.input_layernorm),
            StageSite.of(MLPSite(Projection(mlp.c_fc), mlp.c_proj, mlp.act), block.post_attention_layernorm),
        )
