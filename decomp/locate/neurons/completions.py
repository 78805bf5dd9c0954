"""Computing completions Y of a context X in many variants at once, with changed neurons."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from decomp.core.model import Model
from decomp.locate.limits import rows_within
from decomp.measures.functions import FUNCTIONS

Change = Callable[[int, Float[Tensor, "R Y F"]], Float[Tensor, "R Y F"]]
"""A function of a layer's number, and of its neurons at the positions that predict Y, that returns changed neurons."""


@dataclass(frozen=True, eq=False)
class Completion:
    """A context X and a target Y that follows it, as token ids."""

    context: Int[Tensor, " X"]
    target: Int[Tensor, " Y"]


def log2_prob(logits: Float[Tensor, "R Y V"], target: Int[Tensor, "R Y"]) -> Float[Tensor, " R"]:
    """Return log2 P(Y | X) = Σ_j log2 P(y_j | X, y_<j), in bits."""
    return FUNCTIONS["log2_prob"](logits, target, None).sum(-1)


def prob(logits: Float[Tensor, "R Y V"], target: Int[Tensor, "R Y"]) -> Float[Tensor, " R"]:
    """Return the probability P(Y | X) of the whole target."""
    return log2_prob(logits, target).exp2()


def logit(logits: Float[Tensor, "R Y V"], target: Int[Tensor, "R Y"]) -> Float[Tensor, " R"]:
    """Return the sum of the target's logits, Σ_j z[y_j]."""
    return FUNCTIONS["logit"](logits, target, None).sum(-1)


SEQUENCE_FUNCTIONS = {"log2_prob": log2_prob, "prob": prob, "logit": logit}


class Continuation:
    """A completion computed with teacher forcing, in many variants of its neurons at once.

    Positions before those that predict Y are computed once, since changed neurons do not reach them.
    """

    def __init__(self, model: Model, completion: Completion, neurons: str = "activation") -> None:
        self.model, self.neurons = model, neurons
        context, self.target = (ids.to(model.device) for ids in (completion.context, completion.target))
        self.inputs = torch.cat([context[-1:], self.target[:-1]])
        self.past = None
        if len(context) > 1:
            with torch.no_grad(), model.alone():
                self.past = model.base_model(input_ids=context[None, :-1], use_cache=True).past_key_values

    def __call__(self, function: str, rows: int, change: Change) -> Float[Tensor, " rows"]:
        """Return the function of Y, in `rows` variants whose neurons are changed by `change`."""
        return SEQUENCE_FUNCTIONS[function](self.logits(rows, change), self.target.expand(rows, -1))

    def values(self, function: str, rows: int, change: Change) -> Float[Tensor, "rows Y"]:
        """Return the function of each token of Y, given those before it, in `rows` variants."""
        return FUNCTIONS[function](self.logits(rows, change), self.target.expand(rows, -1), None)

    def logits(self, rows: int, change: Change) -> Float[Tensor, "rows Y V"]:
        """Return the logits that predict Y, in `rows` variants whose neurons are changed by `change`."""
        past = copy.deepcopy(self.past)
        if past is not None:
            past.batch_repeat_interleave(rows)
        with self.model.alone(), changing_neurons(self.model, rows, change, self.neurons):
            hidden = self.model.base_model(
                input_ids=self.inputs.expand(rows, -1), past_key_values=past, use_cache=past is not None
            ).last_hidden_state
        return self.model.unembedding().logits(hidden)

    def bytes_per_row(self) -> int:
        """Return the bytes of one variant with its gradients: keys and values twice, states, neurons and logits."""
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
        """Return the number of variants that fit into the memory. ValueError where not even one fits."""
        return rows_within(memory, self.bytes_per_row(), f"a completion of {len(self.inputs)} tokens")


@contextmanager
def changing_neurons(model: Model, rows: int, change: Change, neurons: str = "activation") -> Iterator[None]:
    """Replace the neurons of every layer, after or before their activation, by `change` of them, while open."""

    def changed(layer: int, values: Tensor) -> Tensor:
        # Some models have rows and tokens in one axis here.
        return change(layer, values.reshape(rows, -1, values.shape[-1])).reshape(values.shape)

    hook = hook_after if neurons == "activation" else hook_before
    handles = hook(model, changed)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hook_after(model: Model, changed: Change) -> list[Any]:
    """Hook the inputs of the last map of every MLP, and return the hooks' handles."""

    def replace(layer: int, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (changed(layer, args[0]),)

    modules = enumerate(model.neuron_modules())
    return [module.register_forward_pre_hook(partial(replace, layer)) for layer, module in modules]


def hook_before(model: Model, changed: Change) -> list[Any]:
    """Hook the inputs of the activation function of every MLP, and return the hooks' handles."""

    def replace(layer: int, columns: slice | Tensor, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        joint = output.clone()
        joint[..., columns] = changed(layer, output[..., columns])
        return joint

    places = enumerate(model.pre_activations())
    return [place.module.register_forward_hook(partial(replace, layer, place.columns)) for layer, place in places]
