"""The rules of numerical integration over [0, 1] for edges and neurons: those of measures, and two with both ends."""

from collections.abc import Callable

from decomp.measures.quadrature import RULES, Nodes


def riemann(steps: int) -> Nodes:
    """Return the nodes i/m, i = 0 … m, of equal weight (Dai et al. 2022, equation 3; auto-circuit's mask values)."""
    return [(i / steps, 1 / (steps + 1)) for i in range(steps + 1)]


def linspace(steps: int) -> Nodes:
    """Return the nodes i/(m − 1), i = 0 … m − 1, of equal weight (knowledge-neurons). ValueError for fewer than two."""
    if steps < 2:
        raise ValueError("linspace has both ends among its nodes: use 2 steps or more")
    return riemann(steps - 1)


QUADRATURES: dict[str, Callable[[int], Nodes]] = {"riemann": riemann, "linspace": linspace, **RULES}
"""The rules by name: functions from a number of steps to nodes and weights."""


def nodes_of(rule: str, steps: int) -> Nodes:
    """Return the nodes and weights of a rule. ValueError for an unknown rule, and for fewer than one step."""
    if rule not in QUADRATURES:
        raise ValueError(f"unknown quadrature {rule!r}: choose one of {', '.join(QUADRATURES)}")
    if steps < 1:
        raise ValueError(f"a path needs 1 step or more, not {steps}")
    return QUADRATURES[rule](steps)
