"""The rules alone."""

from inspect import signature

import pytest
import torch
from torch.testing import assert_close

from decomp.cli.score import command
from decomp.core.network import Norm
from decomp.core.rules import Rules, gate_derivatives, gate_slopes, linearise
from decomp.measures import Request
from decomp.models.base import DecomposedModel

A = torch.linspace(-4, 4, 81, dtype=torch.float64).view(9, 9)


@pytest.mark.parametrize("rule", ["tangent", "secant"])
@pytest.mark.parametrize("activation", [torch.relu, torch.tanh, torch.nn.functional.gelu, torch.nn.functional.silu])
def test_linearised_activation_meets_the_curve(activation, rule):
    slope, intercept = linearise(activation, A, rule)
    assert_close(slope * A + intercept, activation(A), rtol=0, atol=1e-14)


def test_tangent_slope_is_the_derivative():
    slope, _ = linearise(torch.tanh, A, "tangent")
    assert_close(slope, 1 - A.tanh() ** 2, rtol=0, atol=1e-14)


def test_secant_at_zero_is_the_derivative():
    slope, intercept = linearise(torch.tanh, torch.zeros(1, 1, dtype=torch.float64), "secant")
    assert_close(slope, torch.ones(1, 1, dtype=torch.float64))
    assert_close(intercept, torch.zeros(1, 1, dtype=torch.float64))


def test_secant_needs_zero_at_zero():
    with pytest.raises(ValueError, match=r"0 at 0, this one is 0.5: use the activation rule tangent"):
        linearise(torch.sigmoid, A, "secant")


def test_unknown_rule():
    with pytest.raises(ValueError, match="unknown activation rule 'chord': choose one of tangent, secant"):
        Rules("chord")


@pytest.mark.parametrize("method", ["decompose", "decompose_batch", "iter_contributions"])
def test_the_same_rules_by_default_wherever_they_are_chosen(method):
    standard = {"activation_rule": Rules().activation, "gate_rule": Rules().gate}
    assert standard == {"activation_rule": "tangent", "gate_rule": "half"}
    parameters = signature(getattr(DecomposedModel, method)).parameters
    options = {option.name: option.default for option in command.params}
    for name, rule in standard.items():
        assert getattr(Request(), name) == parameters[name].default == options[name] == rule


@pytest.mark.parametrize("centred", [True, False])
def test_folding_a_norm_is_applying_it(centred):
    gamma, weight = torch.randn(9, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    norm = Norm(gamma, None, 1e-5, centred)
    inverse_std = norm.inverse_std(A)
    direct = norm.scale(norm.standardise(A, inverse_std), with_bias=False) @ weight
    assert_close(inverse_std[:, None] * (A @ norm.before(weight)), direct, rtol=0, atol=1e-13)


@pytest.mark.parametrize("centred", [True, False])
def test_folding_a_norm_into_the_map_before_it(centred):
    gamma, weight = torch.randn(9, dtype=torch.float64), torch.randn(4, 9, dtype=torch.float64)
    norm, x = Norm(gamma, None, 1e-5, centred), torch.randn(6, 4, dtype=torch.float64)
    inverse_std = norm.inverse_std(x @ weight)
    direct = norm.scale(norm.standardise(x @ weight, inverse_std), with_bias=False)
    assert_close(inverse_std[:, None] * (x @ norm.after(weight)), direct, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rule", ["frozen", "half"])
def test_gate_rules_are_complete(rule):
    up, gate = torch.randn(2, 9, 9, dtype=torch.float64)
    slopes = gate_slopes(torch.nn.functional.silu, up, gate, rule)
    total = sum(slope * x for slope, x in zip(slopes, (up, gate), strict=False))
    assert len(slopes) == (1 if rule == "frozen" else 2)
    assert_close(total, torch.nn.functional.silu(gate) * up, rtol=0, atol=1e-14)


def test_gate_derivatives():
    up, gate = torch.randn(2, 5, 5, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad((torch.nn.functional.silu(gate) * up).sum(), (up, gate))
    for got, wanted in zip(
        gate_derivatives(torch.nn.functional.silu, up.detach(), gate.detach()), expected, strict=True
    ):
        assert_close(got, wanted, rtol=0, atol=1e-14)


def test_norm_is_layer_norm():
    layer = torch.nn.LayerNorm(9, dtype=torch.float64)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    norm = Norm(layer.weight, layer.bias, layer.eps)
    assert_close(norm.scale(norm.standardise(A, norm.inverse_std(A)), with_bias=True), layer(A), rtol=0, atol=1e-13)
