"""Knowledge neurons (Dai et al. 2022): integrated gradients of a completion's probability in each layer's neurons."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.locate.limits import check_finite
from decomp.locate.neurons.completions import NEURONS, SEQUENCE_FUNCTIONS, Completion, Continuation
from decomp.locate.quadrature import nodes_of

RESIDUAL_WARNED = 0.05


@dataclass(frozen=True)
class NeuronRequest:
    """How neurons are found."""

    function: str = "log2_prob"
    """Of the whole target: log2 P(Y | X) in bits, P(Y | X), or the sum of its logits."""
    contrast: bool = False
    """Whether the same of the foil is taken off."""
    neurons: Literal["activation", "pre-activation"] = "activation"
    """What is scaled: what the MLP's last map is given, or what its activation is."""
    tokens: Literal["together", "separately"] = "together"
    """Whether the neurons at all positions that predict Y are scaled at once, for the function of all of Y; or those
    at one position at a time, for the function of the token predicted there, and the scores added up."""
    steps: int = 20
    quadrature: str = "riemann"
    threshold: float = 0.2
    """Of an item's largest score: what a neuron needs to be found."""
    share: float = 0.7
    """Of a fact's prompts: how many must find a neuron."""
    memory: int = 2**30
    """Bytes for all that is held beside the model."""

    def check(self) -> None:
        """Raise ValueError for unknown names, and for numbers out of range."""
        for name, value, known in (
            ("function", self.function, SEQUENCE_FUNCTIONS),
            ("kind of neurons", self.neurons, NEURONS),
            ("way to scale tokens", self.tokens, ("together", "separately")),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
        for name, number in (("threshold", self.threshold), ("share", self.share)):
            if not 0 <= number <= 1:
                raise ValueError(f"the {name} must be from 0 to 1, not {number}")
        nodes_of(self.quadrature, self.steps)


@dataclass(frozen=True, eq=False)
class NeuronScores:
    """Neurons of every layer at the positions that predict Y. Each layer is scaled alone."""

    scores: Float[Tensor, "L Y F"]
    value: Float[Tensor, ""]
    """F(w): of the attributed function, in bits for `log2_prob`."""
    without: Float[Tensor, " L"]
    """F(0): with all neurons of that layer at zero."""

    @property
    def effect(self) -> Float[Tensor, " L"]:
        """Return F(w) − F(0), what a layer's scores add up to."""
        return self.value - self.without

    @property
    def residual(self) -> Float[Tensor, " L"]:
        """Return how far off they are, the completeness residual."""
        return self.scores.sum((1, 2)) - self.effect

    @property
    def incomplete(self) -> bool:
        """Return whether a residual is more than a small share of the largest effect of a layer."""
        return bool(self.residual.abs().max() > RESIDUAL_WARNED * self.effect.abs().max())

    def minus(self, other: "NeuronScores") -> "NeuronScores":
        """Return the scores of the difference of two functions, each along its own path; positions side by side."""
        scores = torch.cat([self.scores, -other.scores], 1)
        return NeuronScores(scores, self.value - other.value, self.without - other.without)


def integrated_gradients(model: Model, completion: Completion, request: NeuronRequest, place: str = "") -> NeuronScores:
    """Return IG_w = w · Σ_i weight_i · ∂F(α_i w)/∂w of every neuron, one layer's neurons at a time (Dai et al. 2022).

    Layers, nodes, and positions that are scaled separately are computed side by side, as many as fit into the
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
            layers, node, places = cases.unbind(1)
            values, gradients = scaled_gradients(continuation, request.function, layers, alphas[node], places)
            gradient.index_add_(0, layers, weight[node][:, None, None] * gradients)
            zero = alphas[node] == 0
            without.index_add_(0, layers[zero], values[zero] - value[places[zero]])
    scores = NeuronScores(neurons * gradient, value.sum(), without)
    check_finite(scores.scores, lambda at: f"{place}: neuron {at[2]} of layer {at[0]}")
    return scores


def cases_of(neurons: Float[Tensor, "L Y F"], nodes: int, tokens: str) -> Int[Tensor, "cases 3"]:
    """Return every (layer, node, place): the places that are scaled separately, or 0 for all of them together."""
    layers, length, _ = neurons.shape
    ranges = [torch.arange(n, device=neurons.device) for n in (layers, nodes, length if tokens == "separately" else 1)]
    cases = torch.cartesian_prod(*ranges).view(-1, 3)
    return cases if tokens == "separately" else torch.cat([cases[:, :2], torch.full_like(cases[:, 2:], -1)], 1)


@torch.no_grad()
def plain_neurons(
    continuation: Continuation, function: str, tokens: str
) -> tuple[Float[Tensor, "L Y F"], Float[Tensor, " terms"]]:
    """Return the neurons as they are, and the function's value: one number, or one for each token separately."""
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
    places: Int[Tensor, " R"],
) -> tuple[Float[Tensor, " R"], Float[Tensor, "R Y F"]]:
    """Return the function, and ∂F/∂(αw) at αw, in each row for one layer's neurons.

    A place of −1 scales all positions and asks for the function of all of Y; another one scales the neurons there,
    and asks for that of the token predicted there.
    """
    points: dict[int, Tensor] = {}
    rows = {layer: (layers == layer).nonzero()[:, 0] for layer in layers.unique().tolist()}
    apart = bool((places >= 0).any())

    def scale(layer: int, neurons: Tensor) -> Tensor:
        if layer not in rows:
            return neurons
        mine = rows[layer]
        here = scaled_places(places[mine], neurons.shape[1])
        factors = torch.where(here, alphas[mine, None], 1)[:, :, None]
        points[layer] = (factors * neurons[mine]).detach().requires_grad_()
        return neurons.index_copy(0, mine, points[layer])

    with torch.enable_grad():
        if apart:
            values = continuation.values(function, len(layers), scale).gather(1, places[:, None])[:, 0]
        else:
            values = continuation(function, len(layers), scale)
        gradients = torch.autograd.grad(values.sum(), list(points.values()))
    gradient = torch.cat(gradients)[torch.cat([rows[layer] for layer in points]).argsort()]
    return values.detach(), gradient * scaled_places(places, gradient.shape[1])[:, :, None]


def scaled_places(places: Int[Tensor, " R"], length: int) -> Tensor:
    """Return which positions each row scales: one, or for −1 all, shape (R, Y)."""
    return (places[:, None] < 0) | (places[:, None] == torch.arange(length, device=places.device))


def score_completions(model: Model, completions: list[Completion], request: NeuronRequest, place: str) -> NeuronScores:
    """Return the scores of a target, or with `contrast` of a target less those of its foil."""
    each = [integrated_gradients(model, completion, request, place) for completion in completions]
    return each[0].minus(each[1]) if request.contrast else each[0]
