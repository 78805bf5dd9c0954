"""Reading GGUF files faster: transformers and the package gguf would read a file's header three times."""

import importlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from types import ModuleType

from transformers.utils import logging

READING = threading.RLock()
"""The lock that is held while functions of the packages gguf and transformers are replaced."""
SLOW = ("GGUFReader", "get_tensor_name_map")
"""The functions of gguf whose results are kept while a model is loaded.

Transformers calls the first for config, weights and tokenizer, and the second for every module of the model.
"""


@contextmanager
def read_once() -> Iterator[None]:
    """Keep what gguf has read of a file while the context is open, by which loading a model is quicker.

    The progress bar of transformers' dequantising, which it would show always, is shown where its other bars are.
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
    """Give an attribute of a module another value while the context is open, whether or not it has one by that name."""
    before = vars(module).get(name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
