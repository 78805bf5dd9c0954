"""Rules of numerical integration over [0, 1]: nodes, and the weight of each."""

from collections.abc import Callable, Collection

import numpy as np

Nodes = list[tuple[float, float]]
"""The pairs (node, weight) of a rule; nodes are in [0, 1], and the weights add up to 1."""


def gauss_legendre(steps: int) -> Nodes:
    """Return the nodes and weights of Gauss–Legendre, exact for polynomials up to degree 2·steps − 1."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return list(zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))


def trapezoid(steps: int) -> Nodes:
    """Return evenly spaced nodes from 0 to 1, at least two, the two ends with half weight."""
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


BOTH_ENDS = ("trapezoid", "linspace")
"""The rules that have 0 and 1 among their nodes, so that they have at least two; `linspace` is for neurons alone."""


def check_steps(rule: str, steps: int, rules: Collection[str] = RULES) -> None:
    """Raise ValueError, with the known rules, for an unknown one, and for fewer steps than the rule needs."""
    if rule not in rules:
        raise ValueError(f"unknown quadrature {rule!r}: choose one of {', '.join(rules)}")
    if steps < 1:
        raise ValueError(f"a path needs 1 step or more, not {steps}")
    if steps < 2 and rule in BOTH_ENDS:
        raise ValueError(f"{rule} has both ends among its nodes: use 2 steps or more")


def quadrature(rule: str, steps: int) -> Nodes:
    """Return the nodes and weights of a rule over [0, 1].

    ValueError as for `check_steps`.

    >>> quadrature("right", 2)
    [(0.5, 0.5), (1.0, 0.5)]
    """
    check_steps(rule, steps)
    return RULES[rule](steps)
