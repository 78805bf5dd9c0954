"""Locating what a prediction rests on inside the network: its layers, neurons, and edges between components."""
