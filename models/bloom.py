"""BLOOM (Scao et al. 2022): a norm of the embeddings, linear biases of attention by distance (ALiBi)."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import BloomConfig, BloomForCausalLM, BloomModel
from transformers.models.bloom.modeling_bloom import BloomAttention, BloomBlock

from decomp.core.network import Affine
from decomp.models.base import DecomposedModel
from decomp.models.recomputed import RECORDING, recording_attention
from decomp.models.sites import AttentionSite, MLPSite, Projection, StageSite, interleaved

TRAINED_LENGTH = 2048
"""The number of tokens of the texts that BLOOM was trained with, for configs that do not say it."""


class DecomposedBloomAttention(BloomAttention):
    """BLOOM's attention, whose queries and keys can be recorded."""

    config: BloomConfig

    def forward(
        self, hidden_states: Tensor, residual: Tensor, alibi: Tensor, attention_mask: Tensor, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        if self.config._attn_implementation != RECORDING:
            return super().forward(hidden_states, residual, alibi, attention_mask, **options)
        query, key, value = self._reshape(self.query_key_value(hidden_states))
        mixed, weights = recording_attention(self, query, key, value, attention_mask, alibi=alibi)
        return residual + self.dense(self._merge_heads(mixed)), weights

    def eager_attention(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, alibi: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the attention's output, heads first, and its weights, as transformers computes them."""
        rows, keys, values = (x.reshape(-1, *x.shape[2:]) for x in (query, key, value))
        scores = alibi[..., : keys.shape[1]].baddbmm(rows, keys.mT, beta=self.beta, alpha=self.inv_norm_factor)
        masked = scores.view(*query.shape[:3], -1) + attention_mask
        weights = nn.functional.softmax(masked, dim=-1, dtype=torch.float32).to(query.dtype)
        return torch.bmm(weights.flatten(0, 1), values), weights


class DecomposedBloomModel(BloomModel):
    """BLOOM's blocks, whose distances between tokens stay the same where a mask hides some tokens from some targets."""

    def build_alibi_tensor(self, attention_mask: Tensor, num_heads: int, dtype: torch.dtype) -> Tensor:
        if attention_mask.ndim == 4:
            attention_mask = torch.ones_like(attention_mask[:, 0, 0], dtype=torch.long)
        return super().build_alibi_tensor(attention_mask, num_heads, dtype)


class DecomposedBloomForCausalLM(DecomposedModel, BloomForCausalLM):
    """`BloomForCausalLM` whose hidden states can be decomposed by source token.

    ValueError for a config whose residual connections begin after the norms, or whose projections are sliced.
    """

    blocks_at = "h"
    final_norm_at = "ln_f"

    unsupported: ClassVar[dict[str, str]] = {"position_ids": "attention knows distances alone; leave them out"}

    def __init__(self, config: BloomConfig) -> None:
        if config.apply_residual_connection_post_layernorm:
            raise ValueError(
                "BLOOM with apply_residual_connection_post_layernorm=True is not supported: its residual stream "
                "begins anew after every norm; BLOOM's released models have it False"
            )
        if config.slow_but_exact and config.pretraining_tp > 1:
            raise ValueError(
                f"BLOOM with slow_but_exact=True and pretraining_tp={config.pretraining_tp} is not supported: its "
                "output projections are computed in slices, without their biases; set slow_but_exact=False"
            )
        if not hasattr(config, "max_position_embeddings"):  # ALiBi has no last position
            config.max_position_embeddings = getattr(config, "seq_length", TRAINED_LENGTH)
        super().__init__(config)
        self.transformer.__class__ = DecomposedBloomModel
        for block in self.transformer.h:
            block.self_attention.__class__ = DecomposedBloomAttention
            block.self_attention.config = config

    def stages(self, block: BloomBlock) -> tuple[StageSite, ...]:
        """Return where a block keeps its weights."""
        attn, mlp = block.self_attention, block.mlp
        query, key, value = interleaved(attn.query_key_value, attn.num_heads)
        attention = AttentionSite(attn, query, key, value, attn.dense, attn.num_heads, attn.num_heads)
        neurons = MLPSite(Projection(mlp.dense_h_to_4h), mlp.dense_4h_to_h, mlp.gelu_impl)
        return StageSite.of(attention, block.input_layernorm), StageSite.of(neurons, block.post_attention_layernorm)

    def token_embeddings(self) -> tuple[Float[Tensor, "V D"], Affine | None]:
        """Return the embedding matrix after the norm that the blocks are given it through."""
        return self.transformer.word_embeddings_layernorm(self.get_input_embeddings().weight).detach(), None
