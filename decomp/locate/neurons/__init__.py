"""Neurons: those of the MLPs that a completion rests on."""
