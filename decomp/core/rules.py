"""The rules that make activations and gates linear at an operating point (Oh & Schuler 2023, section 3)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

ActivationRule = Literal["tangent", "secant"]
ACTIVATION_RULES: tuple[str, ...] = get_args(ActivationRule)
GateRule = Literal["frozen", "half"]
GATE_RULES: tuple[str, ...] = get_args(GateRule)

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rules:
    """The choice of rules by which a frozen network makes activations of plain MLPs and gates of gated MLPs linear.

    `activation`: `tangent` (Oh & Schuler 2023) or `secant` (DecompX, Modarressi et al. 2023).
    `gate`: `frozen` keeps the gate's value; `half` gives half of the product to either factor (the uniform
    rule of AttnLRP, Achtibat et al. 2024). ValueError for any other name.
    """

    activation: ActivationRule = "tangent"
    gate: GateRule = "half"

    def __post_init__(self) -> None:
        for kind, chosen, known in (
            ("activation", self.activation, ACTIVATION_RULES),
            ("gate", self.gate, GATE_RULES),
        ):
            if chosen not in known:
                raise ValueError(f"unknown {kind} rule {chosen!r}: choose one of {', '.join(known)}")


def activation_slope(activation: Activation, a: Float[Tensor, "T F"]) -> Float[Tensor, "T F"]:
    """Return φ'(a), the derivative of an elementwise activation."""
    return value_and_slope(activation, a)[1]


def value_and_slope(
    activation: Activation, a: Float[Tensor, "T F"]
) -> tuple[Float[Tensor, "T F"], Float[Tensor, "T F"]]:
    """Return φ(a) and φ'(a) of an elementwise activation."""
    with torch.enable_grad():
        a = a.detach().requires_grad_()
        value = activation(a)
        (slope,) = torch.autograd.grad(value.sum(), a)
    return value.detach(), slope


def linearise(
    activation: Activation, a: Float[Tensor, "T F"], rule: ActivationRule
) -> tuple[Float[Tensor, "T F"], Float[Tensor, "T F"]]:
    """Return slope and intercept of an activation φ at its inputs a: φ(a) = slope ⊙ a + intercept.

    `tangent`: slope φ'(a). `secant`: the line through the origin, slope φ(a)/a, which needs φ(0) = 0;
    ValueError otherwise.
    """
    if rule == "secant":
        slope = secant_slope(activation, a)
        return slope, torch.zeros_like(slope)
    value, tangent = value_and_slope(activation, a)
    return tangent, torch.addcmul(value, tangent, a, value=-1)


def secant_slope(activation: Activation, a: Float[Tensor, "T F"]) -> Float[Tensor, "T F"]:
    """Return φ(a)/a, at 0 its limit φ'(0). ValueError for an activation that is not 0 at 0."""
    at_zero = activation(a.new_zeros(1)).item()
    if at_zero != 0:
        raise ValueError(
            f"a line through the origin needs an activation that is 0 at 0, this one is {at_zero:g}: "
            "use the activation rule tangent, or the gate rule frozen"
        )
    return torch.where(a == 0, activation_slope(activation, a), activation(a).detach() / torch.where(a == 0, 1, a))


def gate_slopes(
    activation: Activation, up: Float[Tensor, "T F"], gate: Float[Tensor, "T F"], rule: GateRule
) -> tuple[Float[Tensor, "T F"], ...]:
    """Return the slopes of φ(gate) ⊙ up for `up`, and under the rule `half` for `gate` too.

    Both rules are complete without an intercept: Σ slope ⊙ input = φ(gate) ⊙ up.
    """
    if rule == "frozen":
        return (activation(gate).detach(),)
    return activation(gate).detach() / 2, secant_slope(activation, gate) * up / 2


def gate_derivatives(
    activation: Activation, up: Float[Tensor, "T F"], gate: Float[Tensor, "T F"]
) -> tuple[Float[Tensor, "T F"], ...]:
    """Return the derivatives of φ(gate) ⊙ up with respect to `up` and to `gate`."""
    return activation(gate).detach(), activation_slope(activation, gate) * up
