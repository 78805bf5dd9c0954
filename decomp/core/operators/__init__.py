"""Frozen operators: norms, attention, MLPs and mixtures at the values of one text's forward pass.

Each can `carry` vectors forward through its linear part, `pull` linear functions of its output back through the
transpose, and `differentiate` them back through the real, non-linear operator.
"""

from decomp.core.operators.attention import AttentionRows, FrozenAttention
from decomp.core.operators.mixture import FrozenMixture, RouterGradients
from decomp.core.operators.mlp import FrozenMLP
from decomp.core.operators.norm import FrozenNorm

__all__ = ["AttentionRows", "FrozenAttention", "FrozenMLP", "FrozenMixture", "FrozenNorm", "RouterGradients"]
