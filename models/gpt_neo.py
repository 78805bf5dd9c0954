"""GPT-Neo (Black et al. 2021): layers of global attention and of attention to a window of recent tokens."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPTNeoConfig, GPTNeoForCausalLM
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoBlock, GPTNeoSelfAttention

from decomp.models.base import DecomposedModel
from decomp.models.recomputed import RECORDING, recording_attention
from decomp.models.sites import AttentionSite, MLPSite, Projection, StageSite


class DecomposedGPTNeoSelfAttention(GPTNeoSelfAttention):
    """GPT-Neo's attention, whose queries and keys can be recorded."""

    def _attn(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None
    ) -> tuple[Tensor, Tensor | None]:
        if self.config._attn_implementation != RECORDING:
            return super()._attn(query, key, value, attention_mask)
        length = query.shape[-2]
        # The window is put into the mask, since single rows can't be told which positions they are of.
        seen = self.bias[:, :, :length, :length]
        return recording_attention(
            self, query, key, value, attention_mask.masked_fill(~seen, torch.finfo(query.dtype).min)
        )

    def eager_attention(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the attention's output and weights as transformers computes them, with its window in the mask."""
        scores = query.to(torch.float32) @ key.to(torch.float32).mT + attention_mask
        weights = nn.functional.softmax(scores, dim=-1).to(value.dtype)
        return weights @ value, weights


class DecomposedGPTNeoForCausalLM(DecomposedModel, GPTNeoForCausalLM):
    """`GPTNeoForCausalLM` whose hidden states can be decomposed by source token."""

    blocks_at = "h"
    final_norm_at = "ln_f"

    adds_positions = True
    _supports_flash_attn = False  # its blocks would have another class of attention

    def __init__(self, config: GPTNeoConfig) -> None:
        super().__init__(config)
        for block in self.transformer.h:
            block.attn.attention.__class__ = DecomposedGPTNeoSelfAttention

    def stages(self, block: GPTNeoBlock) -> tuple[StageSite, ...]:
        """Return where a block keeps its weights."""
        attn, mlp = block.attn.attention, block.mlp
        query, key, value = (Projection(p) for p in (attn.q_proj, attn.k_proj, attn.v_proj))
        attention = AttentionSite(attn, query, key, value, attn.out_proj, attn.num_heads, attn.num_heads)
        return (
            StageSite.of(attention, block.ln_1),
            StageSite.of(MLPSite(Projection(mlp.c_fc), mlp.c_proj, mlp.act), block.ln_2),
        )
