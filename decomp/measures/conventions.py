"""Conventions of other tools: named sets of options (`--convention`) that compute what those tools compute."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from decomp.io.names import suggested


@dataclass(frozen=True)
class Convention:
    """A named set of options, by which measures compute what another tool computes by default."""

    name: str
    line: str
    """The name of the tool, with its version or source."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The values of options, by name (`bos` included); options that are given explicitly override them."""
    functions: Mapping[str, str] = field(default_factory=dict)
    """The attributed function of measures for which none is asked for; in a contrast, its contrastive form."""
    differs: str = ""
    """The respect in which the tool still differs, because no option covers it; empty for none."""

    def as_options(self) -> str:
        """Return the options as a command line has them; an empty text for the package's own convention."""
        return " ".join(as_option(name, value) for name, value in self.options.items())


def as_option(name: str, value: Any) -> str:
    """Return one option as it is written on a command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {shlex.quote(str(value))}"


def by_name(conventions: Iterable[Convention]) -> dict[str, Convention]:
    """Return conventions by their names, which `--convention` takes."""
    return {convention.name: convention for convention in conventions}


GRADIENTS = ("gradient_norm", "input_x_gradient", "integrated_gradients", "discretized_ig")
CONVENTIONS = by_name(
    (
        Convention("decomp", "what is described on these pages: the default"),
        Convention(
            "paper",
            "the papers of the gradient measures: scores of the network as it ends, integrals as right sums "
            "(Simonyan et al. 2014; Sundararajan et al. 2017: 20 to 300 steps; Sanyal & Ren 2021)",
            {"quadrature": "right", "steps": 50, "baseline": "zero"},
            {**dict.fromkeys(GRADIENTS[:2], "logit"), **dict.fromkeys(GRADIENTS[2:], "prob")},
        ),
        Convention(
            "interpret-lm",
            "the code of Yin & Neubig 2022: L1 norms and products of gradients of logits, probability lost by erasure "
            "behind an attention mask",
            {"norm": "l1", "replacement": "key", "bos": False},
            {**dict.fromkeys(GRADIENTS[:2], "logit"), "occlusion": "prob"},
        ),
        Convention(
            "captum",
            "LLMGradientAttribution and LLMAttribution with TextTokenInput (Kokhlikyan et al. 2020; Miglani et al. "
            "2023): token 0 as baseline, sums over hidden",
            {"steps": 50, "norm": "l1", "baseline": "id:0", "replacement": "id:0", "bos": False},
            dict.fromkeys((*GRADIENTS, "occlusion"), "log2_prob"),
            "log probabilities are natural there: ours are theirs / ln 2; tokens as the tokenizer gives them, for OPT "
            "with a beginning-of-sequence token: --bos",
        ),
        Convention(
            "inseq",
            "inseq (Sarti et al. 2023): L2 norms over hidden of gradients of the probability, from the unknown token",
            {
                **{"reduce": "norm", "norm": "l2", "steps": 50, "baseline": "unk", "dig_steps": "points"},
                **{"neighbors": 50, "bos": False},
            },
            dict.fromkeys((*GRADIENTS, "occlusion"), "prob"),
            "rows are divided by their sums there; its occlusion puts a vector of zeros in the source's place; special "
            "tokens stay as they are on its paths; tokens as the tokenizer gives them, for OPT with a "
            "beginning-of-sequence token: --bos",
        ),
    )
)
"""All conventions of the measures, by name."""


def find_convention(name: str, known: Mapping[str, Convention] = CONVENTIONS) -> Convention:
    """Return the convention of a name. ValueError, with the known names, for an unknown one."""
    if name not in known:
        raise ValueError(f"unknown convention {name!r}: {suggested(name, known)}")
    return known[name]
