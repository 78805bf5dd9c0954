"""Supported architectures and how to load them; imports torch only when a model is loaded."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from decomp.models.families import DEMO_MODELS, FAMILIES, Family
from decomp.models.registry import register

if TYPE_CHECKING:
    from decomp.models.loading import load_model

__all__ = ["DEMO_MODELS", "FAMILIES", "Family", "load_model", "register"]


def __getattr__(name: str) -> Any:
    if name != "load_model":
        raise AttributeError(f"module 'decomp.models' has no attribute {name!r}")
    return import_module("decomp.models.loading").load_model
