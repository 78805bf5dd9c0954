"""OLMo 2 (OLMo Team 2025): norms after the sublayers only, norms of queries and keys over all heads together."""

from typing import Any

from transformers import Olmo2ForCausalLM

from decomp.models.base import DecomposedModel
from decomp.models.llama import gated_mlp, rotary_attention
from decomp.models.sites import StageSite


class DecomposedOlmo2ForCausalLM(DecomposedModel, Olmo2ForCausalLM):
    """`Olmo2ForCausalLM` whose hidden states can be decomposed by source token."""

    def stages(self, block: Any) -> tuple[StageSite, ...]:
        """Return where a block keeps its weights."""
        return (
            StageSite.of(rotary_attention(block.self_attn), norm_out=block.post_attention_layernorm),
            StageSite.of(gated_mlp(block.mlp), norm_out=block.post_feedforward_layernorm),
        )
