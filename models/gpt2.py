"""GPT-2 (Radford et al. 2019), every attention scaling and activation of its config; no cross-attention."""

from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention, GPT2Block, eager_attention_forward

from decomp.models.base import DecomposedModel
from decomp.models.sites import AttentionSite, MLPSite, Projection, StageSite


class DecomposedGPT2Attention(GPT2Attention):
    """GPT-2's attention, whose weights can be recomputed from recorded queries and keys."""

    def eager_attention(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **options: Any
    ) -> tuple[Tensor, Tensor]:
        if self.reorder_and_upcast_attn:
            if query.dtype == torch.float64:
                raise ValueError(
                    "reorder_and_upcast_attn fixes the attention of this GPT-2 to float32, "
                    "transformers does not run it in float64: use float32"
                )
            return self._upcast_and_reordered_attn(query, key, value, attention_mask)
        return eager_attention_forward(self, query, key, value, attention_mask, **options)


class DecomposedGPT2LMHeadModel(DecomposedModel, GPT2LMHeadModel):
    """`GPT2LMHeadModel` whose hidden states can be decomposed by source token.

    ValueError for a config with cross-attention: its states depend on an encoder besides the tokens.
    """

    blocks_at = "h"
    final_norm_at = "ln_f"

    adds_positions = True

    def __init__(self, config: GPT2Config) -> None:
        if config.add_cross_attention:
            raise ValueError(
                "GPT-2 with cross-attention (add_cross_attention=True) can't be decomposed by source token: "
                "its hidden states depend on an encoder too"
            )
        super().__init__(config)
        # The same module with the same parameters: all that changes is which function makes its weights.
        for block in self.transformer.h:
            block.attn.__class__ = DecomposedGPT2Attention

    def stages(self, block: GPT2Block) -> tuple[StageSite, ...]:
        attn, mlp = block.attn, block.mlp
        query, key, value = (
            Projection(attn.c_attn, slice(i * attn.split_size, (i + 1) * attn.split_size)) for i in range(3)
        )
        attention = AttentionSite(attn, query, key, value, attn.c_proj, attn.num_heads, attn.num_heads)
        return (
            StageSite.of(attention, block.ln_1),
            StageSite.of(MLPSite(Projection(mlp.c_fc), mlp.c_proj, mlp.act), block.ln_2),
        )
