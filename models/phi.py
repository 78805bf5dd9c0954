"""Phi 1, 1.5 and 2 (Gunasekar et al. 2023): attention and MLP side by side after one LayerNorm, partial rotary."""

from typing import Any

from transformers import PhiForCausalLM

from decomp.models.base import DecomposedModel
from decomp.models.llama import rotary_attention
from decomp.models.sites import BranchSite, MLPSite, Projection, StageSite


class DecomposedPhiForCausalLM(DecomposedModel, PhiForCausalLM):
    """`PhiForCausalLM` whose hidden states can be decomposed by source token."""

    final_norm_at = "final_layernorm"

    def stages(self, block: Any) -> tuple[StageSite, ...]:
        """Return where a block keeps its weights."""
        mlp, norm = block.mlp, block.input_layernorm
        attention = BranchSite(rotary_attention(block.self_attn), norm)
        return (StageSite((attention, BranchSite(MLPSite(Projection(mlp.fc1), mlp.fc2, mlp.activation_fn), norm))),)
