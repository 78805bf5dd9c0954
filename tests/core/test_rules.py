"""The rules alone."""

import pytest
import torch
from torch.testing import assert_close

from decomp.core.rules import Norm, linearise

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
    with pytest.raises(ValueError, match=r"0 at 0, this one is 0.5: use the tangent rule"):
        linearise(torch.sigmoid, A, "secant")


def test_unknown_rule():
    with pytest.raises(ValueError, match="unknown activation rule 'chord': choose one of tangent, secant"):
        linearise(torch.tanh, A, "chord")


@pytest.mark.parametrize("centred", [True, False])
def test_folding_a_norm_is_applying_it(centred):
    gamma, weight = torch.randn(9, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    norm = Norm(gamma, None, 1e-5, centred)
    inverse_std = norm.inverse_std(A)
    direct = norm(A, inverse_std, affine=False) @ weight
    assert_close(inverse_std[:, None] * (A @ norm.fold_into(weight)), direct, rtol=0, atol=1e-13)


def test_norm_is_layer_norm():
    layer = torch.nn.LayerNorm(9, dtype=torch.float64)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    norm = Norm(layer.weight, layer.bias, layer.eps)
    assert_close(norm(A, norm.inverse_std(A), affine=True), layer(A), rtol=0, atol=1e-13)
