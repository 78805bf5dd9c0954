"""Knowledge neurons (Dai et al. 2022): integrated gradients of a completion's probability in each layer's neurons."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.locate.neurons.completions import Completion, Continuation
from decomp.measures.quadrature import Nodes, gauss_legendre


def riemann(steps: int) -> Nodes:
    """i/m for i = 0 … m, all of the same weight (Dai et al. 2022, equation 3)."""
    return [(i / steps, 1 / (steps + 1)) for i in range(steps + 1)]


QUADRATURES: dict[str, Callable[[int], Nodes]] = {"riemann": riemann, "gauss-legendre": gauss_legendre}
RESIDUAL_WARNED = 0.05


@dataclass(frozen=True)
class NeuronScores:
    """Neurons of every layer at the positions that predict Y. Each layer is scaled alone."""

    scores: Float[Tensor, "L Y F"]
    value: Float[Tensor, ""]
    """F(w): of the attributed function, in bits for `log2_prob`."""
    without: Float[Tensor, " L"]
    """F(0): with all neurons of that layer at zero."""

    @property
    def effect(self) -> Float[Tensor, " L"]:
        """F(w) − F(0), what a layer's scores add up to."""
        return self.value - self.without

    @property
    def residual(self) -> Float[Tensor, " L"]:
        """The completeness residual: how far off they are."""
        return self.scores.sum((1, 2)) - self.effect

    @property
    def incomplete(self) -> bool:
        """Whether a residual is more than a small share of the largest effect of a layer."""
        return bool(self.residual.abs().max() > RESIDUAL_WARNED * self.effect.abs().max())

    def minus(self, other: "NeuronScores") -> "NeuronScores":
        """The scores of the difference of two functions, each along its own path; positions side by side."""
        scores = torch.cat([self.scores, -other.scores], 1)
        return NeuronScores(scores, self.value - other.value, self.without - other.without)


def integrated_gradients(
    model: Any, completion: Completion, function: str, quadrature: str, steps: int, memory: int
) -> NeuronScores:
    """IG_w = w · Σ_i weight_i · ∂F(α_i w)/∂w, one layer's neurons at a time; layers and nodes side by side."""
    nodes = QUADRATURES[quadrature](steps)
    if nodes[0][0] != 0:  # F(0) is wanted all the same
        nodes = [(0.0, 0.0), *nodes]
    with model.weights_frozen():
        continuation = Continuation(model, completion)
        neurons, value = plain_neurons(continuation, function)
        alphas, weight = neurons.new_tensor(nodes).unbind(1)
        gradient, without = torch.zeros_like(neurons), neurons.new_zeros(len(neurons))
        pairs = torch.cartesian_prod(torch.arange(len(neurons)), torch.arange(len(nodes))).view(-1, 2)
        for part in pairs.to(neurons.device).split(continuation.rows_within(memory)):
            layers, node = part.unbind(1)
            values, gradients = scaled_gradients(continuation, function, layers, alphas[node])
            gradient.index_add_(0, layers, weight[node][:, None, None] * gradients)
            at_zero = alphas[node] == 0
            without[layers[at_zero]] = values[at_zero]
    return NeuronScores(neurons * gradient, value, without)


@torch.no_grad()
def plain_neurons(continuation: Continuation, function: str) -> tuple[Float[Tensor, "L Y F"], Float[Tensor, ""]]:
    """The neurons as they are, and the function's value."""
    kept: list[Tensor] = []

    def keep(layer: int, neurons: Tensor) -> Tensor:
        kept.append(neurons[0].clone())
        return neurons

    (value,) = continuation(function, 1, keep)
    return torch.stack(kept), value


def scaled_gradients(
    continuation: Continuation, function: str, layers: Float[Tensor, " R"], alphas: Float[Tensor, " R"]
) -> tuple[Float[Tensor, " R"], Float[Tensor, "R Y F"]]:
    """∂F/∂(αw) at αw, in each row for one layer's neurons."""
    points: dict[int, Tensor] = {}
    rows = {layer: (layers == layer).nonzero()[:, 0] for layer in layers.unique().tolist()}

    def scale(layer: int, neurons: Tensor) -> Tensor:
        if layer not in rows:
            return neurons
        mine = rows[layer]
        points[layer] = (alphas[mine, None, None] * neurons[mine]).detach().requires_grad_()
        return neurons.index_copy(0, mine, points[layer])

    with torch.enable_grad():
        values = continuation(function, len(layers), scale)
        gradients = torch.autograd.grad(values.sum(), list(points.values()))
    return values.detach(), torch.cat(gradients)[torch.cat([rows[layer] for layer in points]).argsort()]
