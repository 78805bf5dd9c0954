"""Layers: the attention and MLP layers whose outputs a prediction rests on."""
