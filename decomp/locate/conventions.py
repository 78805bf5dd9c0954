"""Conventions of other tools for edges and neurons: named sets of options that compute what those tools compute."""

from decomp.measures.conventions import Convention, by_name

EDGES = by_name(
    (
        Convention(
            "eap",
            "edge attribution patching (Syed et al. 2023)",
            {"method": "mask_gradient", "mask_value": 0.0},
        ),
        Convention(
            "auto-circuit",
            "auto-circuit's mask_gradient_prune_scores: adds up mask values, and over batches the means in them",
            {"method": "mask_gradient", "over_prompts": "batch_means", "over_samples": "sum"},
        ),
        Convention(
            "eap-ig",
            "EAP-IG's code: nodes k/n, k = 0 … n − 1, from the corrupt embedding (0) to the clean one (Hanna et al. "
            "2024 write 1 … n)",
            {"method": "eap_ig", "quadrature": "left"},
        ),
    )
)
"""The conventions for edges, whose options are fields of `EdgeRequest`."""

NEURONS = by_name(
    (
        Convention(
            "knowledge-neurons",
            "EleutherAI's knowledge-neurons on GPT models: scales what the MLP's first map gives, before the "
            "activation, one predicted token at a time, at `steps` values from 0 to 1",
            {
                **{"function": "prob", "neurons": "pre-activation", "tokens": "separately"},
                **{"quadrature": "linspace", "threshold": 0.3, "share": 0.5},
            },
        ),
    )
)
"""The conventions for neurons, whose options are fields of `NeuronRequest`."""
