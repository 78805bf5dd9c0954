"""GPT-J (Wang & Komatsuzaki 2021): attention and MLP side by side after one norm, rotary positions."""

from torch import Tensor
from transformers import GPTJConfig, GPTJForCausalLM
from transformers.models.gptj.modeling_gptj import GPTJAttention, GPTJBlock

from decomp.models.base import DecomposedModel
from decomp.models.recomputed import RECORDING, recording_attention
from decomp.models.sites import AttentionSite, BranchSite, MLPSite, Projection, StageSite


class DecomposedGPTJAttention(GPTJAttention):
    """GPT-J's attention, whose queries and keys can be recorded."""

    def _attn(self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        recorded = self.config._attn_implementation == RECORDING
        attend = recording_attention if recorded else type(self).eager_attention
        return attend(self, query, key, value, attention_mask)

    def eager_attention(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the attention's output and weights by transformers' own function."""
        return super()._attn(query, key, value, attention_mask)


class DecomposedGPTJForCausalLM(DecomposedModel, GPTJForCausalLM):
    """`GPTJForCausalLM` whose hidden states can be decomposed by source token."""

    blocks_at = "h"
    final_norm_at = "ln_f"

    _supports_flash_attn = False  # its blocks would have another class of attention

    def __init__(self, config: GPTJConfig) -> None:
        super().__init__(config)
        for block in self.transformer.h:
            block.attn.__class__ = DecomposedGPTJAttention

    def stages(self, block: GPTJBlock) -> tuple[StageSite, ...]:
        """Return where a block keeps its weights: one stage, whose branches share their norm."""
        attn, mlp = block.attn, block.mlp
        query, key, value = (Projection(p) for p in (attn.q_proj, attn.k_proj, attn.v_proj))
        heads = attn.num_attention_heads
        attention = AttentionSite(attn, query, key, value, attn.out_proj, heads, heads)
        bodies = attention, MLPSite(Projection(mlp.fc_in), mlp.fc_out, mlp.act)
        return (StageSite(tuple(BranchSite(body, block.ln_1) for body in bodies)),)
