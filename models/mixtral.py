"""Mixtures of experts: Mixtral (Jiang et al. 2024), OLMoE (Muennighoff et al. 2024), Qwen 3 MoE."""

from typing import Any, ClassVar

from transformers import MixtralForCausalLM, OlmoeForCausalLM, Qwen3MoeForCausalLM

from decomp.models.base import DecomposedModel
from decomp.models.llama import gated_mlp, rotary_attention
from decomp.models.sites import MixtureSite, StageSite


def mixture(mlp: Any) -> MixtureSite:
    """Return the places of the weights of a mixture of experts whose router is called `gate`."""
    return MixtureSite(mlp, mlp.gate, mlp.experts)


class MixtureShaped(DecomposedModel):
    """A mixin for models whose blocks have rotary attention and a mixture of experts (in some layers a gated MLP).

    An RMSNorm stands before each. Experts run one after the other (transformers' implementation `eager`).
    """

    unsupported: ClassVar[dict[str, str]] = {
        "neurons": "a position has those of the experts that its router chose, not a row of its own for each neuron"
    }

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        # The default multiplies groups of matrices, which torch does not in float64.
        self.config._experts_implementation = "eager"

    def stages(self, block: Any) -> tuple[StageSite, ...]:
        """Return where a block keeps its weights."""
        body = mixture(block.mlp) if hasattr(block.mlp, "experts") else gated_mlp(block.mlp)
        return (
            StageSite.of(rotary_attention(block.self_attn), block.input_layernorm),
            StageSite.of(body, block.post_attention_layernorm),
        )


class DecomposedMixtralForCausalLM(MixtureShaped, MixtralForCausalLM):
    """`MixtralForCausalLM` whose hidden states can be decomposed by source token."""


class DecomposedOlmoeForCausalLM(MixtureShaped, OlmoeForCausalLM):
    """`OlmoeForCausalLM` whose hidden states can be decomposed by source token.

    ValueError for a config that clips queries, keys and values: clipped values are not linear.
    """

    def __init__(self, config: Any) -> None:
        if config.clip_qkv is not None:
            raise ValueError(
                f"OLMoE with clipped values (clip_qkv={config.clip_qkv:g}) can't be decomposed: they are not linear in "
                "the hidden states; expected clip_qkv=None"
            )
        super().__init__(config)


class DecomposedQwen3MoeForCausalLM(MixtureShaped, Qwen3MoeForCausalLM):
    """`Qwen3MoeForCausalLM` whose hidden states can be decomposed by source token."""
