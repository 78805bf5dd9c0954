"""Operators frozen at the values of one forward pass of one text; each can carry, pull and differentiate."""

from decomp.core.operators.attention import AttentionRows, FrozenAttention
from decomp.core.operators.mixture import FrozenMixture, RouterGradients
from decomp.core.operators.mlp import FrozenMLP
from decomp.core.operators.norm import FrozenNorm

__all__ = ["AttentionRows", "FrozenAttention", "FrozenMLP", "FrozenMixture", "FrozenNorm", "RouterGradients"]
