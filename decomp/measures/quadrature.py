"""Rules of numerical integration over [0, 1]: nodes, and the weight of each."""

from collections.abc import Callable

import numpy as np

Nodes = list[tuple[float, float]]
"""The pairs (node, weight) of a rule; nodes are in [0, 1], and the weights add up to 1."""


def gauss_legendre(steps: int) -> Nodes:
    """Return the nodes and weights of Gauss–Legendre, exact for polynomials up to degree 2·steps − 1."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return list(zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))


def trapezoid(steps: int) -> Nodes:
    """Return evenly spaced nodes from 0 to 1, the two ends with half weight. ValueError for fewer than two."""
    if steps < 2:
        raise ValueError("the trapezoid rule has both ends among its nodes: use 2 steps or more")
    inner = 1 / (steps - 1)
    return [(i * inner, inner / 2 if i in (0, steps - 1) else inner) for i in range(steps)]


def riemann(offset: float) -> Callable[[int], Nodes]:
    """Return the rule with one node in each of `steps` equal parts, at `offset` (0 to 1) of the part's width."""
    return lambda steps: [((i + offset) / steps, 1 / steps) for i in range(steps)]


RULES: dict[str, Callable[[int], Nodes]] = {
    "gauss-legendre": gauss_legendre,
    "left": riemann(0),
    "midpoint": riemann(0.5),
    "right": riemann(1),
    "trapezoid": trapezoid,
}


def quadrature(rule: str, steps: int) -> Nodes:
    """Return the nodes and weights of a rule over [0, 1].

    ValueError, with the known rules, for an unknown one, and for fewer than one step.

    >>> quadrature("right", 2)
    [(0.5, 0.5), (1.0, 0.5)]
    """
    if rule not in RULES:
        raise ValueError(f"unknown quadrature {rule!r}: choose one of {', '.join(RULES)}")
    if steps < 1:
        raise ValueError(f"a path needs 1 step or more, not {steps}")
    return RULES[rule](steps)
