"""Freezing mixtures of experts: the experts that each position visits, their slopes, and gradients of the router."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.network import Mixture
from decomp.core.operators import FrozenMixture, FrozenMLP, RouterGradients
from decomp.core.rules import GateRule, gate_derivatives, gate_slopes
from decomp.models.sites import MixtureSite


def frozen_mixture(
    site: MixtureSite,
    mixture: Mixture,
    rule: GateRule,
    for_gradients: bool,
    x: Float[Tensor, "T D"],
    chosen: Int[Tensor, "T chosen"],
    weights: Float[Tensor, "T chosen"],
) -> FrozenMixture:
    """Return a mixture frozen at its input x, the experts chosen at each position, and their weights."""
    visit_index = torch.full((len(mixture.experts), len(x)), -1, device=x.device)
    outputs = x.new_zeros(*chosen.shape, x.shape[1])
    experts = []
    for number, expert in enumerate(mixture.experts):
        visitors, rank = (chosen == number).nonzero(as_tuple=True)
        visit_index[number, visitors] = torch.arange(len(visitors), device=x.device)
        weight = weights[visitors, rank, None].to(x.dtype)
        up, gate = (projection(x[visitors], with_bias=True) for projection in expert.inputs)
        slopes = gate_slopes(site.experts.act_fn, up, gate, rule)
        derivatives = gate_derivatives(site.experts.act_fn, up, gate) if for_gradients else ()
        if for_gradients:
            outputs[visitors, rank] = expert.output(derivatives[0] * up, with_bias=True)
        experts.append(FrozenMLP(expert, scaled(slopes, weight), derivatives=scaled(derivatives, weight)))
    router = RouterGradients(outputs, weight_gradients(site.router, x, chosen)) if for_gradients else None
    return FrozenMixture(mixture, tuple(experts), visit_index, router)


def scaled(slopes: tuple[Float[Tensor, "n F"], ...], weight: Float[Tensor, "n 1"]) -> tuple[Float[Tensor, "n F"], ...]:
    """Return the slopes of an expert at each visiting position, times the router's weight there."""
    return tuple(slope * weight for slope in slopes)


@torch.enable_grad()
def weight_gradients(
    router: Any, x: Float[Tensor, "T D"], chosen: Int[Tensor, "T chosen"]
) -> Float[Tensor, "T chosen D"]:
    """Return the gradient of each chosen expert's weight with respect to the input at its position.

    The model's own router computes it. ValueError where the router does not choose the same experts again.
    """
    x = x.detach().requires_grad_()
    _, weights, again = router(x)
    if not torch.equal(again, chosen):
        raise ValueError("the router chooses other experts for the same input: its gradients can't be had")
    # Positions do not meet in a router: the gradient of a sum over them is that of each.
    gradients = [torch.autograd.grad(weight.sum(), x, retain_graph=True)[0] for weight in weights.unbind(1)]
    return torch.stack(gradients, 1)
