"""Gemma 1, 2 and 3 (Gemma Team 2024, 2025): γ = 1 + weight, scaled embeddings, norms after the sublayers, soft-caps."""

from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import Gemma2ForCausalLM, Gemma3ForCausalLM, GemmaForCausalLM

from decomp.core.network import Affine
from decomp.models.base import DecomposedModel
from decomp.models.llama import LlamaShaped, gated_mlp, rotary_attention
from decomp.models.sites import StageSite


class ScaledEmbeddings(DecomposedModel):
    """A causal model whose token embeddings are scaled before the first block.

    ValueError for a config with attention in both directions: states of such a model depend on later tokens.
    """

    def __init__(self, config: Any) -> None:
        if config.use_bidirectional_attention:
            raise ValueError(
                "Gemma with attention in both directions (use_bidirectional_attention=True) can't be decomposed "
                "target by target: its hidden states depend on later tokens"
            )
        super().__init__(config)

    def token_embeddings(self) -> tuple[Float[Tensor, "V E"], Affine | None]:
        """Return the embedding matrix, scaled as the first block is given it; there is no further map."""
        embed: Any = self.get_input_embeddings()
        weight: Tensor = embed.weight.detach()
        return weight * embed.embed_scale.to(weight.dtype), None


class DecomposedGemmaForCausalLM(ScaledEmbeddings, LlamaShaped, GemmaForCausalLM):
    """`GemmaForCausalLM` whose hidden states can be decomposed by source token."""


class SandwichNormed(ScaledEmbeddings):
    """A mixin for models whose blocks have rotary attention and a gated MLP, with an RMSNorm before and after each."""

    def stages(self, block: Any) -> tuple[StageSite, ...]:
        """Return where a block keeps its weights."""
        return (
            StageSite.of(
                rotary_attention(block.self_attn), block.input_layernorm, norm_out=block.post_attention_layernorm
            ),
            StageSite.of(
                gated_mlp(block.mlp), block.pre_feedforward_layernorm, norm_out=block.post_feedforward_layernorm
            ),
        )


class DecomposedGemma2ForCausalLM(SandwichNormed, Gemma2ForCausalLM):
    """`Gemma2ForCausalLM` (local layers, soft-caps) whose hidden states can be decomposed by source token."""


class DecomposedGemma3ForCausalLM(SandwichNormed, Gemma3ForCausalLM):
    """`Gemma3ForCausalLM` (text alone; query and key norms) whose hidden states can be decomposed by source token."""
