"""The loss of a prompt that edges are scored for, computed from its last logits, and the prompts that it fits."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.locate.edges.prompts import PromptPair, place_of
from decomp.locate.edges.request import PER_BATCH, Behaviour

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


def losses_of(
    behaviour: Behaviour,
    logits: Float[Tensor, "B V"],
    prompts: Sequence[PromptPair],
    clean: Float[Tensor, "B V"] | None,
) -> Float[Tensor, " B"]:
    """Return the loss L of each prompt; `clean` are the model's own logits, which `kl` needs."""
    if behaviour.answer_function == "kl":
        assert clean is not None
        return divergence(logits, clean)
    values = GRAD_FUNCTIONS[behaviour.grad_function](logits)
    answer = ANSWER_FUNCTIONS[behaviour.answer_function]
    return torch.stack([answer(row, prompt) for row, prompt in zip(values, prompts, strict=True)])


def check_prompts(behaviour: Behaviour, prompts: Sequence[PromptPair]) -> None:
    """Raise ValueError for a behaviour that is not valid, and for prompts that do not fit it."""
    behaviour.check()
    for number, prompt in enumerate(prompts):
        check_prompt(behaviour, place_of(prompt, number), prompt)
    check_lengths(behaviour, prompts)


def check_prompt(behaviour: Behaviour, place: str, prompt: PromptPair) -> None:
    """Raise ValueError for a prompt for which the behaviour or the ablation is not defined."""
    if behaviour.answer_function == "avg_diff" and len(prompt.wrong_answers) == 0:
        raise ValueError(f"{place} has no wrong answers, which avg_diff needs: use avg_val")
    if behaviour.ablation == "resample" and torch.equal(prompt.clean, prompt.corrupt):
        raise ValueError(f"{place}: clean and corrupt are the same tokens: resampling would change nothing")
    if behaviour.need_of_batches and prompt.batch is None:
        raise ValueError(f"{place} is of no given batch, {behaviour.need_of_batches}: give --batch-by (batch_by)")


def check_lengths(behaviour: Behaviour, prompts: Sequence[PromptPair]) -> None:
    """Raise ValueError for means at each position over prompts of different lengths."""
    if behaviour.ablation not in ("mean", "batch_mean"):
        return
    for batch in {prompt.batch if behaviour.ablation in PER_BATCH else None for prompt in prompts}:
        lengths = sorted({len(p) for p in prompts if behaviour.ablation == "mean" or p.batch == batch})
        if len(lengths) > 1:
            instead = "token_mean" if behaviour.ablation == "mean" else "batch_token_mean"
            raise ValueError(
                f"the mean at each position needs prompts of one length, they have {lengths[0]} to {lengths[-1]} "
                f"tokens: use {instead}"
            )
