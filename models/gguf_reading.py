"""Reading GGUF files faster: transformers and the package gguf would read a file's header three times."""

import importlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
from transformers.utils import logging

READING = threading.RLock()
"""The lock that is held while functions of the packages gguf and transformers are replaced."""


@contextmanager
def read_once() -> Iterator[None]:
    """Keep what gguf has read of a file while the context is open, by which loading a model is quicker.

    The progress bar of transformers' dequantising, which it would show always, is shown where its other bars are.
    """
    gguf = importlib.import_module("gguf")
    dequantising = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    # Transformers calls the first for config, weights and tokenizer, and the second for every module of the model.
    slow = {"GGUFReader": with_plain_arrays(gguf.GGUFReader), "get_tensor_name_map": gguf.get_tensor_name_map}
    with READING, ExitStack() as replaced:
        for name, function in slow.items():
            replaced.enter_context(replacing(gguf, name, lru_cache(maxsize=None)(function)))
        replaced.enter_context(replacing(dequantising, "tqdm", logging.tqdm))
        yield


def with_plain_arrays(reader: Any) -> Any:
    """Return a class that reads as `reader` does, from a plain array on the mapped file.

    A header of 50,000 tokens is read in 250,000 slices; those of `np.memmap` take three times as long.
    """

    class Reader(reader):
        @property
        def data(self) -> np.ndarray:
            return self.mapped

        @data.setter
        def data(self, mapped: np.ndarray) -> None:
            self.mapped = mapped.view(np.ndarray)

    return Reader


@contextmanager
def replacing(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """Give an attribute of a module another value while the context is open, whether or not it has one by that name."""
    before = vars(module).get(name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
