"""Nodes and weights of integrals over [0, 1] where the network is looked into: those of measures, and closed rules."""

from collections.abc import Callable

from decomp.measures.quadrature import RULES, Nodes


def riemann(steps: int) -> Nodes:
    """Return i/m for i = 0 … m, all of the same weight (Dai et al. 2022, equation 3; auto-circuit's mask values)."""
    return [(i / steps, 1 / (steps + 1)) for i in range(steps + 1)]


def linspace(steps: int) -> Nodes:
    """Return i/(m − 1) for i = 0 … m − 1, all of the same weight (knowledge-neurons). ValueError for less than two."""
    if steps < 2:
        raise ValueError("linspace has both ends among its nodes: use 2 steps or more")
    return riemann(steps - 1)


QUADRATURES: dict[str, Callable[[int], Nodes]] = {"riemann": riemann, "linspace": linspace, **RULES}
"""By name, from a number of steps."""


def nodes_of(rule: str, steps: int) -> Nodes:
    """Return the nodes and weights of a rule. ValueError, with the known ones, for an unknown rule; for no steps."""
    if rule not in QUADRATURES:
        raise ValueError(f"unknown quadrature {rule!r}: choose one of {', '.join(QUADRATURES)}")
    if steps < 1:
        raise ValueError(f"a path needs 1 step or more, not {steps}")
    return QUADRATURES[rule](steps)
