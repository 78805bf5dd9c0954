"""The rules of numerical integration over [0, 1] for edges and neurons: those of measures, and two with both ends."""

from collections.abc import Callable

from decomp.measures.quadrature import RULES, Nodes, check_steps


def riemann(steps: int) -> Nodes:
    """Return the nodes i/m, i = 0 … m, of equal weight (Dai et al. 2022, equation 3; auto-circuit's mask values)."""
    return [(i / steps, 1 / (steps + 1)) for i in range(steps + 1)]


def linspace(steps: int) -> Nodes:
    """Return the nodes i/(m − 1), i = 0 … m − 1, of equal weight (knowledge-neurons); m is at least 2."""
    return riemann(steps - 1)


QUADRATURES: dict[str, Callable[[int], Nodes]] = {"riemann": riemann, "linspace": linspace, **RULES}
"""The rules by name: functions from a number of steps to nodes and weights."""


def nodes_of(rule: str, steps: int) -> Nodes:
    """Return the nodes and weights of a rule. ValueError as for `check_steps`."""
    check_steps(rule, steps, QUADRATURES)
    return QUADRATURES[rule](steps)
