"""Running a model for one thread at a time, in evaluation mode and its own precision, with a chosen attention."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import nn
from transformers import PreTrainedModel

from decomp.models.precision import own_precision

R = TypeVar("R")

LOCKS: "WeakKeyDictionary[nn.Module, threading.RLock]" = WeakKeyDictionary()
"""The lock of each model; it is not an attribute of the model since a lock can be neither copied nor pickled."""
MAKING = threading.Lock()


@contextmanager
def exclusive(model: nn.Module) -> Iterator[None]:
    """Keep other threads from using a model while the context is open, since hooks change the model's state."""
    with MAKING:
        lock = LOCKS.setdefault(model, threading.RLock())
    with lock:
        yield


def alone(forward: Callable[..., R]) -> Callable[..., R]:
    """Return a model's forward method wrapped so that one thread runs it at a time, in the model's own precision."""

    @wraps(forward)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> R:
        with exclusive(self), own_precision(self.dtype):
            return forward(self, *args, **kwargs)

    return wrapped


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Keep all parts of a model in evaluation mode; those that were training do so again at the end."""
    training = [module for module in model.modules() if module.training]
    if training:  # to tell all parts what they are already takes as long as a small layer
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def running(model: PreTrainedModel, attention: str) -> Iterator[None]:
    """Keep a model in evaluation mode, with the given attention, for one thread; undo the changes at the end."""
    with exclusive(model), own_precision(model.dtype), evaluating(model):
        before = model.config._attn_implementation
        try:
            model.config._attn_implementation = attention
            yield
        finally:
            model.config._attn_implementation = before
