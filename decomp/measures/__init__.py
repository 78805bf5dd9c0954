"""Measures of what a prediction rests on: scores of every source for every predicted token."""

from decomp.measures.registry import SCORES, Measure, find_measure
from decomp.measures.request import AttentionOptions, GradientOptions, OcclusionOptions, Request, Text

__all__ = [
    "SCORES",
    "AttentionOptions",
    "GradientOptions",
    "Measure",
    "OcclusionOptions",
    "Request",
    "Text",
    "find_measure",
]
