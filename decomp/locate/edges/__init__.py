"""Edges: the connections between attention heads, MLPs and logits that a behaviour rests on."""
