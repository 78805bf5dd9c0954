"""Completions Y of a context X, run in many variants at once, their neurons within reach."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from decomp.measures.functions import FUNCTIONS

Change = Callable[[int, Float[Tensor, "R Y F"]], Float[Tensor, "R Y F"]]
"""From a layer and its neurons at the positions that predict Y to what takes their place."""


@dataclass(frozen=True)
class Completion:
    context: Int[Tensor, " X"]
    target: Int[Tensor, " Y"]


def log2_prob(logits: Float[Tensor, "R Y V"], target: Int[Tensor, "R Y"]) -> Float[Tensor, " R"]:
    """log2 P(Y | X) = Σ_j log2 P(y_j | X, y_<j), in bits."""
    return FUNCTIONS["log2_prob"](logits, target, None).sum(-1)


def prob(logits: Float[Tensor, "R Y V"], target: Int[Tensor, "R Y"]) -> Float[Tensor, " R"]:
    """P(Y | X)."""
    return log2_prob(logits, target).exp2()


def logit(logits: Float[Tensor, "R Y V"], target: Int[Tensor, "R Y"]) -> Float[Tensor, " R"]:
    """Σ_j z[y_j]."""
    return FUNCTIONS["logit"](logits, target, None).sum(-1)


SEQUENCE_FUNCTIONS = {"log2_prob": log2_prob, "prob": prob, "logit": logit}


class Continuation:
    """Teacher-forced passes of one completion. What precedes the positions that predict Y is computed once:
    no change of the neurons there reaches it."""

    def __init__(self, model: Any, completion: Completion) -> None:
        self.model = model
        context, self.target = (ids.to(model.device) for ids in (completion.context, completion.target))
        self.inputs = torch.cat([context[-1:], self.target[:-1]])
        self.past = None
        if len(context) > 1:
            with torch.no_grad():
                self.past = model.base_model(input_ids=context[None, :-1], use_cache=True).past_key_values

    def __call__(self, function: str, rows: int, change: Change) -> Float[Tensor, " rows"]:
        """The function of Y in so many variants, with the neurons changed."""
        past = copy.deepcopy(self.past)
        if past is not None:
            past.batch_repeat_interleave(rows)
        with changing_neurons(self.model, rows, change):
            hidden = self.model.base_model(
                input_ids=self.inputs.expand(rows, -1), past_key_values=past, use_cache=past is not None
            ).last_hidden_state
        return SEQUENCE_FUNCTIONS[function](self.model.unembedding().logits(hidden), self.target.expand(rows, -1))

    def bytes_per_row(self) -> int:
        """What a variant holds with its gradients: keys and values twice, states and neurons, logits."""
        seen = 0 if self.past is None else self.past.get_seq_length()
        mine, vocab = len(self.inputs), len(self.model.unembedding().weight)
        held = 4 * mine * vocab
        for operator in self.model.network().operators:
            if operator.heads:
                states = 4 * (seen + mine) * operator.hidden + 8 * mine * operator.hidden
                held += states + 3 * mine * operator.heads * (seen + mine)
            else:
                held += mine * (4 * len(operator.inputs) * operator.neurons + 4 * operator.hidden)
        return int(held * self.model.dtype.itemsize)

    def rows_within(self, memory: int) -> int:
        return max(1, memory // self.bytes_per_row())


@contextmanager
def changing_neurons(model: Any, rows: int, change: Change) -> Iterator[None]:
    """Every layer's post-activation neurons replaced by what `change` makes of them."""

    def replace(layer: int, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        # Some models have rows and tokens in one axis here.
        return (change(layer, args[0].view(rows, -1, args[0].shape[-1])).view(args[0].shape),)

    handles = [
        module.register_forward_pre_hook(partial(replace, layer)) for layer, module in enumerate(model.neuron_modules())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
