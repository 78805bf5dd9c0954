"""What users of other tools expect, as options under one name; explicit options override them."""

from collections.abc import Collection, Mapping
from typing import Any

from decomp.io.names import suggested

Conventions = Mapping[str, Mapping[str, Any]]

EDGES: Conventions = {
    "eap": {"method": "mask_gradient", "mask_value": 0.0},
    "auto-circuit": {"method": "mask_gradient", "over_prompts": "batch_means", "over_samples": "sum"},
    "eap-ig": {"method": "eap_ig", "quadrature": "left"},
}
"""Fields of `EdgeRequest` by name: edge attribution patching (Syed et al. 2023); auto-circuit's
`mask_gradient_prune_scores`, which adds up mask values, and over batches the means in them; the code of EAP-IG, whose
nodes are k/n for k = 0 … n − 1, from the corrupt embedding (0) to the clean one (Hanna et al. 2024 write 1 … n)."""

NEURONS: Conventions = {
    "knowledge-neurons": {
        "function": "prob",
        "neurons": "pre-activation",
        "tokens": "separately",
        "quadrature": "linspace",
        "threshold": 0.3,
        "share": 0.5,
    },
}
"""Fields of `NeuronRequest` by name: the code of EleutherAI's knowledge-neurons on GPT models, which scales what the
MLP's first map gives, before the activation, one predicted token at a time, at `steps` values from 0 to 1."""


def with_convention(
    options: Mapping[str, Any], name: str | None, known: Conventions, given: Collection[str] = ()
) -> dict[str, Any]:
    """Return options with those of a convention, except for the `given` ones, which override it.

    ValueError, with the known ones, for an unknown name.
    """
    if name is None:
        return dict(options)
    if name not in known:
        raise ValueError(f"unknown convention {name!r}: {suggested(name, known)}")
    return {**options, **{field: value for field, value in known[name].items() if field not in given}}
