"""Supported architectures and how to load them."""

from decomp.models.loading import ARCHITECTURES, DEMO_MODELS, load_model

__all__ = ["ARCHITECTURES", "DEMO_MODELS", "load_model"]
