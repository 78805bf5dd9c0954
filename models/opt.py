"""OPT (Zhang et al. 2022): pre- or post-LayerNorm, `project_in`/`project_out`, any activation."""

from torch import nn
from transformers import OPTForCausalLM
from transformers.models.opt.modeling_opt import OPTDecoderLayer

from decomp.models.base import DecomposedModel
from decomp.models.sites import AttentionSite, MLPSite, Projection, StageSite


class DecomposedOPTForCausalLM(DecomposedModel, OPTForCausalLM):
    """`OPTForCausalLM` whose hidden states can be decomposed by source token."""

    blocks_at = "decoder.layers"
    final_norm_at = "decoder.final_layer_norm"

    adds_positions = True

    def stages(self, block: OPTDecoderLayer) -> tuple[StageSite, ...]:
        attn = block.self_attn
        query, key, value = (Projection(p) for p in (attn.q_proj, attn.k_proj, attn.v_proj))
        attention = AttentionSite(attn, query, key, value, attn.out_proj, attn.num_heads, attn.num_heads)
        mlp = MLPSite(Projection(block.fc1), block.fc2, block.activation_fn)
        if block.do_layer_norm_before:
            return StageSite.of(attention, block.self_attn_layer_norm), StageSite.of(mlp, block.final_layer_norm)
        return (
            StageSite.of(attention, norm=block.self_attn_layer_norm),
            StageSite.of(mlp, norm=block.final_layer_norm),
        )

    def project_in(self) -> nn.Module | None:
        return self.model.decoder.project_in

    def project_out(self) -> nn.Module | None:
        return self.model.decoder.project_out
