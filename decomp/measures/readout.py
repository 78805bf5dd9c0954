"""Attributed functions of final hidden states: their values, gradients, and changes when a vector is taken away."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.ablation import ROWS, Unembedding, ablated_log2_prob, next_log2_prob, target_logit
from decomp.measures.functions import find_function
from decomp.measures.request import Text

LINEAR = ("logit", "contrast_logit", "contrast_log2_prob")
"""The functions that are linear in the hidden state; in a contrast of log probabilities, normalisers cancel."""

SLOPES = 2**28
"""The bytes of logits, and of what is computed from them, that are held while gradients are taken."""


@dataclass(frozen=True, eq=False)
class Readout:
    """An attributed function of the next token (and foil) of each target, as a function of its final hidden state."""

    function: str
    """The name of the attributed function, such as `log2_prob`."""
    unembedding: Unembedding
    """The language-model head, by which logits are computed."""
    hidden: Float[Tensor, "N E"]
    """The final hidden state of each target that predicts a token."""
    next_ids: Int[Tensor, " N"]
    """The id of the token that follows each target."""
    foils: Int[Tensor, " N"] | None = None
    """The ids of the foils, for contrastive functions; None for others."""

    @classmethod
    def of(cls, text: Text, hidden: Float[Tensor, "T E"], function: str | None, unembedding: Unembedding) -> "Readout":
        """Return the readout of all targets of a text that predict a token."""
        assert function is not None
        return cls(function, unembedding, hidden[: len(text.ids) - 1], text.ids[1:], text.foils)

    @cached_property
    def log2_prob(self) -> Float[Tensor, " N"]:
        """Return the log2 probability of each next token, in bits, whichever function is attributed."""
        return next_log2_prob(self.hidden, self.next_ids, self.unembedding)

    @cached_property
    def foil_log2_prob(self) -> Float[Tensor, " N"]:
        """Return the log2 probability of each foil, in bits."""
        assert self.foils is not None
        return next_log2_prob(self.hidden, self.foils, self.unembedding)

    @cached_property
    def linear(self) -> Float[Tensor, "N E"]:
        """Return for each target the vector whose product with the hidden state is the function, without head bias.

        The function must be a linear one.
        """
        self.unembedding.require_linear(f"the share of a source in {self.function}")
        return self.contrast(self.unembedding.weight)

    @property
    def head_bias(self) -> Float[Tensor, " N"] | None:
        """Return the part of the head's bias in a linear function; None where the head has no bias."""
        bias = self.unembedding.bias
        return None if bias is None else self.contrast(bias)

    def contrast(self, values: Float[Tensor, "V *E"]) -> Float[Tensor, "N *E"]:
        """Return `values` of the next token (for contrastive functions minus the foil's), in the function's unit."""
        chosen = values[self.next_ids]
        if self.function != "logit":
            assert self.foils is not None
            chosen = chosen - values[self.foils]
        return chosen / math.log(2) if self.function == "contrast_log2_prob" else chosen

    def change(self, vectors: Float[Tensor, "pairs E"], targets: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return F(z[i]) − F(z[i] − U v) for each row v of `vectors` and its target i; targets must not decrease."""
        if self.function in LINEAR and self.unembedding.softcap is None:
            return self.product(vectors, targets)
        if self.function in LINEAR:
            return self.logits(torch.zeros_like(vectors), targets) - self.logits(vectors, targets)
        if self.function == "contrast_prob":
            assert self.foils is not None
            return self.prob_change(vectors, targets, self.next_ids) - self.prob_change(vectors, targets, self.foils)
        if self.function == "prob":
            return self.prob_change(vectors, targets, self.next_ids)
        ablated = ablated_log2_prob(vectors, targets, self.hidden, self.next_ids, self.unembedding)
        return self.log2_prob[targets] - ablated

    def prob_change(
        self, vectors: Float[Tensor, "pairs E"], targets: Int[Tensor, " pairs"], tokens: Int[Tensor, " N"]
    ) -> Float[Tensor, " pairs"]:
        """Return the probability that one token of each target loses when a vector is taken from its hidden state."""
        plain = self.log2_prob if tokens is self.next_ids else self.foil_log2_prob
        ablated = ablated_log2_prob(vectors, targets, self.hidden, tokens, self.unembedding)
        return plain[targets].exp2() - ablated.exp2()

    def logits(self, vectors: Float[Tensor, "pairs E"], targets: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return a function of logits without each vector; logits are soft-capped where the model's are."""
        value = target_logit(vectors, targets, self.hidden, self.next_ids, self.unembedding)
        if self.function != "logit":
            assert self.foils is not None
            value = value - target_logit(vectors, targets, self.hidden, self.foils, self.unembedding)
        return value / math.log(2) if self.function == "contrast_log2_prob" else value

    def product(self, vectors: Float[Tensor, "pairs E"], targets: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the product of each vector with its target's linear function: its share in the function's value."""
        dtype = torch.promote_types(vectors.dtype, torch.float32)
        parts = zip(vectors.split(ROWS), targets.split(ROWS), strict=True)
        return torch.cat([torch.linalg.vecdot(v.to(dtype), self.linear[i].to(dtype)) for v, i in parts])

    def gradients(self, targets: range, memory: int) -> tuple[Float[Tensor, " n"], Float[Tensor, "n E"]]:
        """Return the function's values for some targets, and its gradients with respect to their hidden states."""
        vocab = len(self.unembedding.weight)
        # Logits, their exponentials, and the gradients of both.
        block = max(1, memory // (4 * vocab * self.hidden.element_size()))
        # A text may predict nothing.
        values, gradients = [self.hidden.new_zeros(0)], [self.hidden[:0]]
        for start in range(targets.start, targets.stop, block):
            rows = slice(start, min(start + block, targets.stop))
            with torch.enable_grad():
                hidden = self.hidden[rows].detach().requires_grad_()
                foils = None if self.foils is None else self.foils[rows]
                value = find_function(self.function)(self.unembedding.logits(hidden), self.next_ids[rows], foils)
                gradients += torch.autograd.grad(value.sum(), hidden)
            values.append(value.detach())
        return torch.cat(values), torch.cat(gradients)


@dataclass(frozen=True, eq=False)
class FirstOrder(Readout):
    """An attributed function replaced by its tangent at the model's own hidden states (first order)."""

    targets: range = range(0)
    """The targets that are scored; gradients of other targets are left at 0."""

    @classmethod
    def of(
        cls, text: Text, hidden: Float[Tensor, "T E"], function: str | None, unembedding: Unembedding
    ) -> "FirstOrder":
        """Return the first-order function for the targets of a text."""
        assert function is not None
        return cls(function, unembedding, hidden[: len(text.ids) - 1], text.ids[1:], text.foils, text.targets)

    @cached_property
    def linear(self) -> Float[Tensor, "N E"]:
        """Return the gradient with respect to each target's hidden state; zero for targets that are not scored."""
        slopes = torch.zeros_like(self.hidden)
        _, found = self.gradients(self.targets, SLOPES)
        slopes[self.targets.start : self.targets.stop] = found
        return slopes

    @property
    def head_bias(self) -> None:
        """Return None: a gradient has no constant part."""

    def change(self, vectors: Float[Tensor, "pairs E"], targets: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the decrease of the function, to first order, when each vector is taken away from its target."""
        return self.product(vectors, targets)


class FirstOrderLogit(FirstOrder):
    """A first-order readout of the next token's logit (minus the foil's) in place of the attributed function."""

    @classmethod
    def of(
        cls, text: Text, hidden: Float[Tensor, "T E"], function: str | None, unembedding: Unembedding
    ) -> "FirstOrder":
        """Return the readout for a text's targets: of the logit, or for contrastive functions of the difference."""
        assert function is not None
        logit = "contrast_logit" if function.startswith("contrast") else "logit"
        return super().of(text, hidden, logit, unembedding)
