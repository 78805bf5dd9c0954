"""Scoring neurons by integrated gradients of a completion's probability (knowledge neurons, Dai et al. 2022)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.locate.limits import check_finite
from decomp.locate.neurons.completions import Completion, Continuation
from decomp.locate.neurons.request import NeuronRequest
from decomp.locate.quadrature import nodes_of

RESIDUAL_WARNED = 0.05


@dataclass(frozen=True, eq=False)
class NeuronScores:
    """The scores of all neurons at the positions that predict Y, each layer scaled by itself."""

    scores: Float[Tensor, "L Y F"]
    """The score of every neuron, by layer, position and neuron."""
    value: Float[Tensor, ""]
    """The value F(w) of the attributed function with the neurons as they are; in bits for `log2_prob`."""
    without: Float[Tensor, " L"]
    """The value F(0) of the function with all neurons of one layer at zero, for each layer."""

    @property
    def effect(self) -> Float[Tensor, " L"]:
        """Return F(w) − F(0) of each layer, which its scores approximately add up to."""
        return self.value - self.without

    @property
    def residual(self) -> Float[Tensor, " L"]:
        """Return the completeness residual of each layer: the sum of its scores minus the effect."""
        return self.scores.sum((1, 2)) - self.effect

    @property
    def incomplete(self) -> bool:
        """Return whether any layer's residual is more than a small share of the largest effect."""
        return bool(self.residual.abs().max() > RESIDUAL_WARNED * self.effect.abs().max())

    def minus(self, other: "NeuronScores") -> "NeuronScores":
        """Return the scores of the difference of two functions, each along its own path; positions are side by side."""
        scores = torch.cat([self.scores, -other.scores], 1)
        return NeuronScores(scores, self.value - other.value, self.without - other.without)


def integrated_gradients(model: Model, completion: Completion, request: NeuronRequest, place: str = "") -> NeuronScores:
    """Return IG_w = w · Σ_i weight_i · ∂F(α_i w)/∂w of every neuron w, scaled layer by layer (Dai et al. 2022).

    Layers, nodes α_i, and positions that are scaled separately are computed side by side, as many as fit into the
    memory. ValueError, with the place, for too little memory, and for scores that are not finite.
    """
    nodes = nodes_of(request.quadrature, request.steps)
    if nodes[0][0] != 0:  # F(0) is wanted all the same
        nodes = [(0.0, 0.0), *nodes]
    with model.weights_frozen():
        continuation = Continuation(model, completion, request.neurons)
        neurons, value = plain_neurons(continuation, request.function, request.tokens)
        alphas, weight = neurons.new_tensor(nodes).unbind(1)
        gradient, without = torch.zeros_like(neurons), value.sum().repeat(len(neurons))
        for cases in cases_of(neurons, len(nodes), request.tokens).split(continuation.rows_within(request.memory)):
            layers, node, positions = cases.unbind(1)
            values, gradients = scaled_gradients(continuation, request.function, layers, alphas[node], positions)
            gradient.index_add_(0, layers, weight[node][:, None, None] * gradients)
            zero = alphas[node] == 0
            without.index_add_(0, layers[zero], values[zero] - value[positions[zero]])
    scores = NeuronScores(neurons * gradient, value.sum(), without)
    check_finite(scores.scores, lambda at: f"{place}: neuron {at[2]} of layer {at[0]}")
    return scores


def cases_of(neurons: Float[Tensor, "L Y F"], nodes: int, tokens: str) -> Int[Tensor, "cases 3"]:
    """Return all cases (layer, node, position); for positions that are scaled together, a single position 0."""
    layers, length, _ = neurons.shape
    ranges = [torch.arange(n, device=neurons.device) for n in (layers, nodes, length if tokens == "separately" else 1)]
    cases = torch.cartesian_prod(*ranges).view(-1, 3)
    return cases if tokens == "separately" else torch.cat([cases[:, :2], torch.full_like(cases[:, 2:], -1)], 1)


@torch.no_grad()
def plain_neurons(
    continuation: Continuation, function: str, tokens: str
) -> tuple[Float[Tensor, "L Y F"], Float[Tensor, " terms"]]:
    """Return the unchanged neurons, and the function's value: one number, or with `separately` one for each token."""
    kept: list[Tensor] = []

    def keep(layer: int, neurons: Tensor) -> Tensor:
        kept.append(neurons[0].clone())
        return neurons

    (values,) = (
        continuation.values(function, 1, keep) if tokens == "separately" else continuation(function, 1, keep)[None]
    )
    return torch.stack(kept), values.view(-1)


def scaled_gradients(
    continuation: Continuation,
    function: str,
    layers: Int[Tensor, " R"],
    alphas: Float[Tensor, " R"],
    positions: Int[Tensor, " R"],
) -> tuple[Float[Tensor, " R"], Float[Tensor, "R Y F"]]:
    """Return the function at αw, and ∂F/∂(αw), for each row, which scales the neurons w of one layer.

    The position −1 scales all, for the function of all of Y; another scales the neurons at that position
    alone, for the function of the token predicted there.
    """
    points: dict[int, Tensor] = {}
    rows = {layer: (layers == layer).nonzero()[:, 0] for layer in layers.unique().tolist()}
    apart = bool((positions >= 0).any())

    def scale(layer: int, neurons: Tensor) -> Tensor:
        if layer not in rows:
            return neurons
        mine = rows[layer]
        here = scaled_positions(positions[mine], neurons.shape[1])
        factors = torch.where(here, alphas[mine, None], 1)[:, :, None]
        points[layer] = (factors * neurons[mine]).detach().requires_grad_()
        return neurons.index_copy(0, mine, points[layer])

    with torch.enable_grad():
        if apart:
            values = continuation.values(function, len(layers), scale).gather(1, positions[:, None])[:, 0]
        else:
            values = continuation(function, len(layers), scale)
        gradients = torch.autograd.grad(values.sum(), list(points.values()))
    gradient = torch.cat(gradients)[torch.cat([rows[layer] for layer in points]).argsort()]
    return values.detach(), gradient * scaled_positions(positions, gradient.shape[1])[:, :, None]


def scaled_positions(positions: Int[Tensor, " R"], length: int) -> Tensor:
    """Return the positions that each row scales, one or for −1 all, as a mask of shape (R, Y)."""
    return (positions[:, None] < 0) | (positions[:, None] == torch.arange(length, device=positions.device))


def score_completions(model: Model, completions: list[Completion], request: NeuronRequest, place: str) -> NeuronScores:
    """Return the scores of a target, or with `contrast` those of a target minus those of its foil."""
    each = [integrated_gradients(model, completion, request, place) for completion in completions]
    return each[0].minus(each[1]) if request.contrast else each[0]
