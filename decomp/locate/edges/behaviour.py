"""The behaviour that edges are scored for: one loss a prompt, computed from its last logits, and the ablation."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.locate.edges.prompts import PromptPair, place_of

T = TypeVar("T")

GRAD_FUNCTIONS: dict[str, Callable[[Float[Tensor, "B V"]], Float[Tensor, "B V"]]] = {
    "logit": lambda logits: logits,
    "prob": lambda logits: logits.softmax(-1),
    "logprob": lambda logits: logits.log_softmax(-1) / math.log(2),
    "logprob_nats": lambda logits: logits.log_softmax(-1),
    "logit_exp": lambda logits: (logits - logits.logsumexp(-1, keepdim=True).detach()).exp(),
}
"""The value of each token of the vocabulary that a loss is computed from, by name.

`logprob` is in bits, `logprob_nats` in nats as in auto-circuit; `logit_exp` is the probability with a normaliser that
is constant under differentiation.
"""


def average_value(values: Float[Tensor, " V"], prompt: PromptPair) -> Float[Tensor, ""]:
    """Return the mean value of the right answers."""
    return values[prompt.answers].mean()


def average_difference(values: Float[Tensor, " V"], prompt: PromptPair) -> Float[Tensor, ""]:
    """Return the mean value of the right answers minus that of the wrong answers."""
    return values[prompt.answers].mean() - values[prompt.wrong_answers].mean()


def mean_squared_error(values: Float[Tensor, " V"], prompt: PromptPair) -> Float[Tensor, ""]:
    """Return the mean squared error of the values against 1 / n for each of the n right answers, 0 for other tokens."""
    wanted = torch.zeros_like(values).index_fill(0, prompt.answers, 1 / len(prompt.answers))
    return (values - wanted).square().mean()


def divergence(logits: Float[Tensor, "B V"], clean: Float[Tensor, "B V"]) -> Float[Tensor, " B"]:
    """Return the Kullback–Leibler divergence KL(clean ‖ these) of predictions from the clean ones, in bits."""
    wanted = clean.log_softmax(-1)
    return (wanted.exp() * (wanted - logits.log_softmax(-1))).sum(-1) / math.log(2)


ANSWER_FUNCTIONS: dict[str, Callable[[Float[Tensor, " V"], PromptPair], Float[Tensor, ""]]] = {
    "avg_diff": lambda values, prompt: -average_difference(values, prompt),
    "avg_val": lambda values, prompt: -average_value(values, prompt),
    "mse": mean_squared_error,
}
"""The loss L of one prompt, by name; it is lower for better answers, so that ablating what they rest on raises it."""

LOSSES = {
    "avg_diff": "L = -(mean {0} of answers - mean {0} of wrong answers)",
    "avg_val": "L = -(mean {0} of answers)",
    "mse": "L = mean over the vocabulary of ({0} - 1 shared by the answers)^2",
    "kl": "L = KL(clean prediction || prediction), bits",
}
"""The losses in words, for outputs of commands; `kl` compares whole predictions instead of answers."""


def find(kind: str, name: str, known: Mapping[str, T]) -> T:
    """Return the entry of a name. ValueError, which names the `kind` and the known names, for an unknown one."""
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(known)}")
    return known[name]


Ablation = Literal["resample", "zero", "mean", "token_mean", "batch_mean", "batch_token_mean"]
"""The output that an ablated source has instead of its own.

That on the other prompt of the pair; zero; its mean over all prompts, at each position (`mean`) or over positions, too
(`token_mean`); or such means over the prompts of a given batch.
"""
ABLATIONS: tuple[str, ...] = get_args(Ablation)
MEANS = ("mean", "token_mean", "batch_mean", "batch_token_mean")
OVER_TOKENS = ("token_mean", "batch_token_mean")
PER_BATCH = ("batch_mean", "batch_token_mean")
Side = Literal["clean", "corrupt", "both"]
SIDES: tuple[str, ...] = get_args(Side)


@dataclass(frozen=True)
class Behaviour:
    """The behaviour that edges are scored for, and the ablation of their sources."""

    grad_function: str = "logit"
    """The value of each token that the loss is computed from, a name in `GRAD_FUNCTIONS`."""
    answer_function: str = "avg_diff"
    """The loss, a name in `ANSWER_FUNCTIONS`, or `kl`."""
    ablation: Ablation = "resample"
    """The output that an ablated source has instead of its own."""
    side: Side = "corrupt"
    """The side of the pairs that ablated outputs are computed on; `both` for means over clean and corrupt prompts."""
    memory: int = 2**30
    """The bytes of memory for all that is held beside the model."""

    def check(self, prompts: Sequence[PromptPair] = ()) -> None:
        """Raise ValueError for unknown names of functions and ablations, and for prompts that do not fit them."""
        find("grad function", self.grad_function, GRAD_FUNCTIONS)
        find("answer function", self.answer_function, LOSSES)
        find("ablation", self.ablation, dict.fromkeys(ABLATIONS))
        find("side", self.side, dict.fromkeys(SIDES))
        if (self.ablation, self.side) == ("resample", "clean"):
            raise ValueError("resampling the clean prompts' own outputs changes nothing: resample from corrupt")
        if self.side == "both" and self.ablation not in MEANS:
            raise ValueError(f"only means are over both prompts of a pair, {self.ablation} is not: use corrupt")
        if self.answer_function == "kl" and self.grad_function != "logit":
            raise ValueError(f"kl looks at the whole prediction, not at {self.grad_function}: leave it out")
        for number, prompt in enumerate(prompts):
            self.check_prompt(place_of(prompt, number), prompt)
        self.check_lengths(prompts)

    def check_prompt(self, place: str, prompt: PromptPair) -> None:
        """Raise ValueError for a prompt for which the behaviour or the ablation is not defined."""
        if self.answer_function == "avg_diff" and len(prompt.wrong_answers) == 0:
            raise ValueError(f"{place} has no wrong answers, which avg_diff needs: use avg_val")
        if self.ablation == "resample" and torch.equal(prompt.clean, prompt.corrupt):
            raise ValueError(f"{place}: clean and corrupt are the same tokens: resampling would change nothing")
        if self.ablation in PER_BATCH and prompt.batch is None:
            raise ValueError(f"{place} is of no given batch, which {self.ablation} needs: give --batch-by (batch_by)")

    def check_lengths(self, prompts: Sequence[PromptPair]) -> None:
        """Raise ValueError for means at each position over prompts of different lengths."""
        if self.ablation not in ("mean", "batch_mean"):
            return
        for batch in {prompt.batch if self.ablation in PER_BATCH else None for prompt in prompts}:
            lengths = sorted({len(p) for p in prompts if self.ablation == "mean" or p.batch == batch})
            if len(lengths) > 1:
                instead = "token_mean" if self.ablation == "mean" else "batch_token_mean"
                raise ValueError(
                    f"the mean at each position needs prompts of one length, they have {lengths[0]} to {lengths[-1]} "
                    f"tokens: use {instead}"
                )

    def losses(
        self, logits: Float[Tensor, "B V"], prompts: Sequence[PromptPair], clean: Float[Tensor, "B V"] | None
    ) -> Float[Tensor, " B"]:
        """Return the loss L of each prompt; `clean` are the model's own logits, which `kl` needs."""
        if self.answer_function == "kl":
            assert clean is not None
            return divergence(logits, clean)
        values = GRAD_FUNCTIONS[self.grad_function](logits)
        answer = ANSWER_FUNCTIONS[self.answer_function]
        return torch.stack([answer(row, prompt) for row, prompt in zip(values, prompts, strict=True)])
