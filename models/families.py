"""The table of model families that can be decomposed; a new family is a line here and a file beside this one."""

from dataclasses import dataclass
from pathlib import Path

import decomp


@dataclass(frozen=True)
class Family:
    """An architecture of transformers that can be decomposed, with what `decomp models` and the docs say of it."""

    model_type: str
    """The architecture's name in configs."""
    name: str
    """The family's name for readers."""
    model_class: str
    """The decomposed class, as `module:Class`, which is imported when a model of the family is loaded."""
    examples: tuple[str, ...]
    """The hub ids of some models of the family."""
    frozen: str
    """The parts of the network that are frozen at the values of the forward pass, in words."""
    rules: str
    """The options that choose the rules by which frozen parts are made linear."""
    positions: str
    """The kind of positional encoding, in words."""
    verified: str
    """The reference that the tests compare the family with, in words."""
    traits: tuple[str, ...]
    """The fields of a config by which a similar architecture is recognised."""


PLAIN = "attention weights, LayerNorm scales, activation slopes"
ACTIVATION_RULES = "--activation-rule tangent|secant"
GATED = "attention weights, RMSNorm scales, gates"
GATE_RULES = "--gate-rule frozen|half"
VERIFIED = "transformers' logits bit for bit, completeness in float64, Jacobians, autograd"
GATED_TRAITS = ("num_key_value_heads", "rms_norm_eps", "rope_parameters", "hidden_act", "intermediate_size")
GEMMA_TRAITS = (
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "hidden_activation",
    "query_pre_attn_scalar",
    "intermediate_size",
)
MIXTURE = "attention weights, RMSNorm scales, gates, the experts chosen and their weights"
MIXTURE_TRAITS = (
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "num_experts_per_tok",
    "output_router_logits",
)


def llama_shaped(model_type: str, name: str, class_name: str, examples: tuple[str, ...], positions: str) -> Family:
    """Return a family whose blocks have the structure of Llama's."""
    return gated(model_type, name, f"llama:{class_name}", examples, positions)


def gated(
    model_type: str,
    name: str,
    model_class: str,
    examples: tuple[str, ...],
    positions: str,
    traits: tuple[str, ...] = GATED_TRAITS,
    frozen: str = GATED,
) -> Family:
    """Return a family with RMSNorms and gated MLPs."""
    return Family(
        model_type,
        name,
        f"decomp.models.{model_class}",
        examples,
        frozen,
        GATE_RULES,
        positions,
        VERIFIED,
        traits,
    )


FAMILIES: tuple[Family, ...] = (
    Family(
        model_type="opt",
        name="OPT (Zhang et al. 2022)",
        model_class="decomp.models.opt:DecomposedOPTForCausalLM",
        examples=("facebook/opt-125m", "facebook/opt-350m", "facebook/opt-6.7b"),
        frozen=PLAIN,
        rules=ACTIVATION_RULES,
        positions="learned, absolute",
        verified="transformers' logits bit for bit, completeness in float64, Jacobians, the original research code",
        traits=("do_layer_norm_before", "word_embed_proj_dim", "ffn_dim", "activation_function"),
    ),
    Family(
        model_type="gpt2",
        name="GPT-2 (Radford et al. 2019)",
        model_class="decomp.models.gpt2:DecomposedGPT2LMHeadModel",
        examples=("openai-community/gpt2", "openai-community/gpt2-xl", "distilbert/distilgpt2"),
        frozen=PLAIN,
        rules=ACTIVATION_RULES,
        positions="learned, absolute",
        verified="transformers' logits bit for bit, completeness in float64, Jacobians",
        traits=("n_embd", "n_positions", "layer_norm_epsilon", "scale_attn_weights"),
    ),
    Family(
        model_type="gpt_neox",
        name="GPT-NeoX (Black et al. 2022), Pythia (Biderman et al. 2023)",
        model_class="decomp.models.gpt_neox:DecomposedGPTNeoXForCausalLM",
        examples=("EleutherAI/pythia-70m", "EleutherAI/pythia-1.4b", "EleutherAI/gpt-neox-20b"),
        frozen=PLAIN,
        rules=ACTIVATION_RULES,
        positions="rotary, in part of each head",
        verified=VERIFIED,
        traits=("use_parallel_residual", "layer_norm_eps", "rope_parameters", "attention_bias"),
    ),
    Family(
        model_type="gptj",
        name="GPT-J (Wang & Komatsuzaki 2021)",
        model_class="decomp.models.gptj:DecomposedGPTJForCausalLM",
        examples=("EleutherAI/gpt-j-6b",),
        frozen=PLAIN,
        rules=ACTIVATION_RULES,
        positions="rotary, in part of each head",
        verified=VERIFIED,
        traits=("rotary_dim", "n_embd", "n_positions", "layer_norm_epsilon"),
    ),
    Family(
        model_type="gpt_neo",
        name="GPT-Neo (Black et al. 2021)",
        model_class="decomp.models.gpt_neo:DecomposedGPTNeoForCausalLM",
        examples=("EleutherAI/gpt-neo-125m", "EleutherAI/gpt-neo-1.3B", "roneneldan/TinyStories-33M"),
        frozen=PLAIN,
        rules=ACTIVATION_RULES,
        positions="learned, absolute; every other layer sees a window",
        verified=VERIFIED,
        traits=("attention_types", "attention_layers", "window_size", "layer_norm_epsilon"),
    ),
    Family(
        model_type="bloom",
        name="BLOOM (Scao et al. 2022)",
        model_class="decomp.models.bloom:DecomposedBloomForCausalLM",
        examples=("bigscience/bloom-560m", "bigscience/bloom-7b1", "bigscience/bloomz-560m"),
        frozen=PLAIN,
        rules=ACTIVATION_RULES,
        positions="linear biases of attention by distance (ALiBi)",
        verified=VERIFIED,
        traits=("apply_residual_connection_post_layernorm", "pretraining_tp", "slow_but_exact", "layer_norm_epsilon"),
    ),
    llama_shaped(
        "llama",
        "Llama 2 and 3 (Touvron et al. 2023), SmolLM",
        "DecomposedLlamaForCausalLM",
        ("meta-llama/Llama-3.2-1B", "HuggingFaceTB/SmolLM2-135M", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
        "rotary",
    ),
    llama_shaped(
        "mistral",
        "Mistral (Jiang et al. 2023)",
        "DecomposedMistralForCausalLM",
        ("mistralai/Mistral-7B-v0.1",),
        "rotary, sliding window",
    ),
    llama_shaped("qwen2", "Qwen 2 and 2.5", "DecomposedQwen2ForCausalLM", ("Qwen/Qwen2.5-0.5B",), "rotary"),
    llama_shaped(
        "qwen3", "Qwen 3", "DecomposedQwen3ForCausalLM", ("Qwen/Qwen3-0.6B",), "rotary, norms of queries and keys"
    ),
    gated(
        "gemma",
        "Gemma (Gemma Team 2024)",
        "gemma:DecomposedGemmaForCausalLM",
        ("google/gemma-2b",),
        "rotary",
    ),
    gated(
        "gemma2",
        "Gemma 2 (soft-caps of scores and logits)",
        "gemma:DecomposedGemma2ForCausalLM",
        ("google/gemma-2-2b",),
        "rotary, sliding window in every other layer",
        GEMMA_TRAITS,
    ),
    gated(
        "gemma3_text",
        "Gemma 3 (text alone)",
        "gemma:DecomposedGemma3ForCausalLM",
        ("google/gemma-3-270m", "google/gemma-3-1b-pt"),
        "rotary, sliding window in most layers, norms of queries and keys",
        GEMMA_TRAITS,
    ),
    gated(
        "olmo2",
        "OLMo 2 (norms after the sublayers)",
        "olmo2:DecomposedOlmo2ForCausalLM",
        ("allenai/OLMo-2-0425-1B",),
        "rotary, norms of queries and keys",
    ),
    gated(
        "phi3",
        "Phi 3 and 4",
        "phi3:DecomposedPhi3ForCausalLM",
        ("microsoft/Phi-3-mini-4k-instruct", "microsoft/Phi-4-mini-instruct"),
        "rotary, partial in some, sliding window in some",
    ),
    gated(
        "mixtral",
        "Mixtral (Jiang et al. 2024; mixture of experts)",
        "mixtral:DecomposedMixtralForCausalLM",
        ("mistralai/Mixtral-8x7B-v0.1",),
        "rotary",
        (*MIXTURE_TRAITS, "num_local_experts", "router_jitter_noise"),
        MIXTURE,
    ),
    gated(
        "olmoe",
        "OLMoE (Muennighoff et al. 2024; mixture of experts)",
        "mixtral:DecomposedOlmoeForCausalLM",
        ("allenai/OLMoE-1B-7B-0924",),
        "rotary, norms of queries and keys",
        (*MIXTURE_TRAITS, "num_experts"),
        MIXTURE,
    ),
    gated(
        "qwen3_moe",
        "Qwen 3 with experts",
        "mixtral:DecomposedQwen3MoeForCausalLM",
        ("Qwen/Qwen3-30B-A3B",),
        "rotary, norms of queries and keys",
        (*MIXTURE_TRAITS, "num_experts", "moe_intermediate_size", "decoder_sparse_step"),
        MIXTURE,
    ),
    Family(
        model_type="phi",
        name="Phi 1, 1.5 and 2",
        model_class="decomp.models.phi:DecomposedPhiForCausalLM",
        examples=("microsoft/phi-1_5", "microsoft/phi-2"),
        frozen=PLAIN,
        rules=ACTIVATION_RULES,
        positions="rotary, partial",
        verified=VERIFIED,
        traits=("layer_norm_eps", "qk_layernorm", "resid_pdrop", "embd_pdrop"),
    ),
    Family(
        model_type="starcoder2",
        name="StarCoder 2",
        model_class="decomp.models.starcoder2:DecomposedStarcoder2ForCausalLM",
        examples=("bigcode/starcoder2-3b",),
        frozen=PLAIN,
        rules=ACTIVATION_RULES,
        positions="rotary, sliding window",
        verified=VERIFIED,
        traits=("norm_epsilon", "use_bias", "residual_dropout", "num_key_value_heads"),
    ),
)

TESTED_TRANSFORMERS: tuple[str, ...] = ("5.20", "5.21", "5.22", "5.23")
"""The versions of transformers, without their last number, that all families have been tested with."""

DATA = Path(decomp.__file__).parent / "data"
DEMO_MODELS: dict[str, str] = {
    "demo-opt": "6 layers, 192 wide, ReLU, trained on 22 English novels",
    "demo-gpt2": "6 layers, 192 wide, GELU, trained on 22 English novels",
}
"""The models that are shipped with the package, in folders of these names in `DATA`, with what each is."""
DEMO_FILES: dict[str, tuple[str, str]] = {
    "demo.sentitems": ("demo.sentitems", "three passages of novels, for score, decompose and evaluate"),
    "demo-contrast.csv": ("contrast.csv", "twelve contrast items, for contrast and evaluate alignment"),
    "demo-vases.jsonl": ("vases.jsonl", "contexts with a planted fact, for context and evaluate context"),
    "demo-evidence.csv": ("evidence.csv", "contrast items with the word that decides, for evaluate alignment"),
    "demo-facts.jsonl": ("facts.jsonl", "a dozen facts, for layers and neurons"),
    "demo-edits.jsonl": ("edits.jsonl", "four edits of code, for neurons"),
    "demo-pronouns.json": ("pronouns.json", "pairs of prompts, for edges"),
}
"""The inputs that are shipped with the package: by name, the file in `DATA`, and what it is."""


def demo_file(path: Path) -> Path:
    """Return the path of an input: the shipped one of that name, unless the working folder has such a file."""
    if str(path) in DEMO_FILES and not path.exists():
        return DATA / DEMO_FILES[str(path)][0]
    return path
