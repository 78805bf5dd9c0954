"""Models that tests share until one of them changes them: making some anew costs as much as most tests."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, TypeVar

import torch
from torch import nn

from tests.paths import MODEL

T = TypeVar("T", bound=tuple[Any, ...])

MADE: dict[tuple[object, ...], tuple[Any, list[object]]] = {}
"""Models that were made in this process, and the state they were in."""
SHIPPED = (MODEL, "demo-opt", "demo-gpt2")
"""The names of shipped models, which commands in tests load time and again."""
handed: set[tuple[object, ...]] | None = None
"""The keys of what this test was handed; None outside of tests, as in the fixtures of a module."""


@contextmanager
def one_test() -> Iterator[None]:
    """Share models with the tests before, as long as this is open."""
    global handed
    handed = set()
    try:
        yield
    finally:
        handed = None


def shared(key: tuple[object, ...], make: Callable[[], T]) -> T:
    """Return models as `make` makes them: those of the last test that asked for the key, if it left them as they were.

    Fixtures of a module, and a second call in one test, get models of their own.
    """
    if handed is None or key in handed:
        return make()
    handed.add(key)
    return unchanged(key, make)


def loading_once(load_both: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    """Return `load_both` such that it loads a shipped model once, and again only after a test has changed it."""

    def load(name: str, dtype: torch.dtype, revision: str | None, options: dict[str, Any]) -> tuple[Any, Any]:
        if name not in SHIPPED or revision or options:
            return load_both(name, dtype, revision, options)
        return unchanged((name, dtype), lambda: load_both(name, dtype, revision, options))

    return load


def unchanged(key: tuple[object, ...], make: Callable[[], T]) -> T:
    """Return the models that were made for the key, made again if a test has changed them."""
    if key not in MADE or changed(*MADE[key]):
        models = make()
        MADE[key] = (models, list(state_of(models)))
    return MADE[key][0]


def changed(models: tuple[Any, ...], state: list[object]) -> bool:
    """Return whether models are no longer in a state."""
    return not all(same(one, other) for one, other in zip_longest(state_of(models), state))


def same(one: object, other: object) -> bool:
    """Return whether a part of a state is what it was: the same object, or an equal text or tuple."""
    return one is other or (isinstance(one, str | tuple) and one == other)


def state_of(models: tuple[Any, ...]) -> Iterator[object]:
    """Yield all that a test could change of models, apart from what they derive from their weights and keep."""
    for model in models:
        if isinstance(model, nn.Module):
            yield from parts_of(model)


def parts_of(model: Any) -> Iterator[object]:
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, dict) and name != "_kept":
                yield from value.values()
            elif name != "_kept":
                yield value
    yield from (str(vars(model.config)), str(vars(model.generation_config)))
    tensors = [*model.parameters(), *model.buffers()]
    for tensor in tensors:
        yield from ((tensor._version, tensor.data_ptr(), tensor.dtype, tensor.requires_grad), tensor.grad)
    # Writing to `.data` makes no other version of a tensor.
    with torch.no_grad():
        norms = torch._foreach_norm([tensor for tensor in tensors if tensor.is_floating_point()])
        yield tuple(torch.stack(norms).tolist())
