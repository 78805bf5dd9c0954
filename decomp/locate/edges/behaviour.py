"""The behaviour that edges are scored for, one number a prompt from its last logits, and how it is ablated."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.locate.edges.prompts import PromptPair

T = TypeVar("T")

GRAD_FUNCTIONS: dict[str, Callable[[Float[Tensor, "B V"]], Float[Tensor, "B V"]]] = {
    "logit": lambda logits: logits,
    "prob": lambda logits: logits.softmax(-1),
    "logprob": lambda logits: logits.log_softmax(-1) / math.log(2),
    "logit_exp": lambda logits: (logits - logits.logsumexp(-1, keepdim=True).detach()).exp(),
}
"""What counts of each token. `logprob` is in bits; `logit_exp` is the probability with its normaliser held fixed
when derivatives are taken."""


def average_value(values: Float[Tensor, " V"], prompt: PromptPair) -> Float[Tensor, ""]:
    return values[prompt.answers].mean()


def average_difference(values: Float[Tensor, " V"], prompt: PromptPair) -> Float[Tensor, ""]:
    return values[prompt.answers].mean() - values[prompt.wrong_answers].mean()


def mean_squared_error(values: Float[Tensor, " V"], prompt: PromptPair) -> Float[Tensor, ""]:
    """Against 1 shared by the answers and 0 for all other tokens."""
    wanted = torch.zeros_like(values).index_fill(0, prompt.answers, 1 / len(prompt.answers))
    return (values - wanted).square().mean()


ANSWER_FUNCTIONS: dict[str, Callable[[Float[Tensor, " V"], PromptPair], Float[Tensor, ""]]] = {
    "avg_diff": lambda values, prompt: -average_difference(values, prompt),
    "avg_val": lambda values, prompt: -average_value(values, prompt),
    "mse": mean_squared_error,
}
"""The loss L of one prompt: lower is better, so ablating what the answer rests on raises it."""

LOSSES = {
    "avg_diff": "L = -(mean {0} of answers - mean {0} of wrong answers)",
    "avg_val": "L = -(mean {0} of answers)",
    "mse": "L = mean over the vocabulary of ({0} - 1 shared by the answers)^2",
}
"""The same in words, for outputs."""


def find(kind: str, name: str, known: Mapping[str, T]) -> T:
    """ValueError, with the known ones, for an unknown name."""
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(known)}")
    return known[name]


Ablation = Literal["resample", "zero", "mean", "token_mean"]
"""Sources' outputs on the other prompt of the pair; zero; their mean over prompts, at each position or over all."""
ABLATIONS: tuple[str, ...] = get_args(Ablation)


@dataclass(frozen=True)
class Setting:
    """Which behaviour, and what sources' outputs are replaced by."""

    grad_function: str = "logit"
    answer_function: str = "avg_diff"
    ablation: Ablation = "resample"
    side: Literal["clean", "corrupt"] = "corrupt"
    """The prompts that ablations come from."""
    memory: int = 2**30

    def check(self, prompts: Sequence[PromptPair]) -> None:
        """ValueError for unknown names, and for prompts that don't fit them."""
        find("grad function", self.grad_function, GRAD_FUNCTIONS)
        find("answer function", self.answer_function, ANSWER_FUNCTIONS)
        find("ablation", self.ablation, dict.fromkeys(ABLATIONS))
        if (self.ablation, self.side) == ("resample", "clean"):
            raise ValueError("resampling the clean prompts' own outputs changes nothing: resample from corrupt")
        for number, prompt in enumerate(prompts):
            if self.answer_function == "avg_diff" and len(prompt.wrong_answers) == 0:
                raise ValueError(f"prompt {number} has no wrong answers, which avg_diff needs: use avg_val")
        lengths = sorted({len(prompt) for prompt in prompts})
        if self.ablation == "mean" and len(lengths) > 1:
            raise ValueError(
                f"the mean at each position needs prompts of one length, they have {lengths[0]} to {lengths[-1]} "
                "tokens: use token_mean"
            )

    def losses(self, logits: Float[Tensor, "B V"], prompts: Sequence[PromptPair]) -> Float[Tensor, " B"]:
        """L of each prompt."""
        values = GRAD_FUNCTIONS[self.grad_function](logits)
        answer = ANSWER_FUNCTIONS[self.answer_function]
        return torch.stack([answer(row, prompt) for row, prompt in zip(values, prompts, strict=True)])
