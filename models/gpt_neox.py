"""GPT-NeoX (Black et al. 2022) and Pythia: partial rotary positions, parallel or sequential residual connections."""

from transformers import GPTNeoXForCausalLM
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXLayer

from decomp.models.base import DecomposedModel
from decomp.models.sites import AttentionSite, BranchSite, MLPSite, Projection, StageSite, interleaved


class DecomposedGPTNeoXForCausalLM(DecomposedModel, GPTNeoXForCausalLM):
    """`GPTNeoXForCausalLM` whose hidden states can be decomposed by source token."""

    final_norm_at = "final_layer_norm"

    def stages(self, block: GPTNeoXLayer) -> tuple[StageSite, ...]:
        """Return where a block keeps its weights: one stage where attention and MLP are parallel, else two."""
        attn, mlp, heads = block.attention, block.mlp, self.config.num_attention_heads
        query, key, value = interleaved(attn.query_key_value, heads)
        attention = AttentionSite(attn, query, key, value, attn.dense, heads, heads)
        branches = (
            BranchSite(attention, block.input_layernorm),
            BranchSite(
                MLPSite(Projection(mlp.dense_h_to_4h), mlp.dense_4h_to_h, mlp.act), block.post_attention_layernorm
            ),
        )
        return (StageSite(branches),) if block.use_parallel_residual else tuple(StageSite((b,)) for b in branches)
