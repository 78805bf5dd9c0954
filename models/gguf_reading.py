"""Reading GGUF files by transformers and the package gguf, which alone would read a header three times, slowly."""

import importlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from types import ModuleType

from transformers.utils import logging

READING = threading.RLock()
"""Held while functions of gguf and transformers are replaced."""
SLOW = ("GGUFReader", "get_tensor_name_map")
"""What transformers asks gguf for: the header, for config, weights and tokenizer anew; the names of all tensors, for
every module of the model."""


@contextmanager
def read_once() -> Iterator[None]:
    """Keep what gguf has read of a file until the end: a third of the time to load a model of 30 layers.

    The progress bar of transformers' dequantising is shown where its other bars are: it asks nobody.
    """
    gguf = importlib.import_module("gguf")
    dequantising = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    with READING, ExitStack() as replaced:
        for name in SLOW:
            replaced.enter_context(replacing(gguf, name, lru_cache(maxsize=None)(getattr(gguf, name))))
        replaced.enter_context(replacing(dequantising, "tqdm", logging.tqdm))
        yield


@contextmanager
def replacing(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """Give a module's name another value until the end; a name that this version of it lacks as well."""
    before = vars(module).get(name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
