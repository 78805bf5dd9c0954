"""What users of other tools expect: `--convention`, and those of the measures. Imports no torch."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from decomp.io.names import suggested


@dataclass(frozen=True)
class Convention:
    """The options that a tool has as its own defaults."""

    name: str
    line: str
    """Whose convention it is."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values by the name of an option, or of the setting `bos`; what is given explicitly wins over them."""
    functions: Mapping[str, str] = field(default_factory=dict)
    """What measures attribute where no function is asked for; contrasted, the contrast of the same."""
    differs: str = ""
    """What the tool does that no option does."""

    def as_options(self) -> str:
        """Return the options as they are written on a command line; nothing for the package's own convention."""
        return " ".join(as_option(name, value) for name, value in self.options.items())


def as_option(name: str, value: Any) -> str:
    """Return one option as it is written on a command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {shlex.quote(str(value))}"


def by_name(conventions: Iterable[Convention]) -> dict[str, Convention]:
    """Return conventions by their names, as `--convention` takes them."""
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
"""Every convention of the measures."""


def find_convention(name: str, known: Mapping[str, Convention] = CONVENTIONS) -> Convention:
    """Return the convention of that name. ValueError, with the known ones, for an unknown one."""
    if name not in known:
        raise ValueError(f"unknown convention {name!r}: {suggested(name, known)}")
    return known[name]
