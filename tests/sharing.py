"""Models that tests share until one of them changes them: making some anew costs as much as most tests."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

T = TypeVar("T", bound=tuple[Any, ...])

MADE: dict[tuple[object, ...], tuple[Any, list[object]]] = {}
"""Models that were made in this process, and the state they were in."""
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
    """Models as `make` gives them: those of the last test that asked for the key, if it left them as they were.

    What is wider than a test has models of its own, as has a second call in one test.
    """
    if handed is None or key in handed:
        return make()
    handed.add(key)
    if key not in MADE or changed(*MADE[key]):
        models = make()
        MADE[key] = (models, state_of(models))
    return MADE[key][0]


def changed(models: tuple[Any, ...], state: list[object]) -> bool:
    """Whether models are no longer in a state."""
    now = state_of(models)
    return len(now) != len(state) or not all(map(same, now, state))


def same(one: object, other: object) -> bool:
    """Whether a part of a state is what it was: the same object, or an equal text or tuple."""
    return one is other or (isinstance(one, str | tuple) and one == other)


def state_of(models: tuple[Any, ...]) -> list[object]:
    """All that a test could change of models, but what they keep of their weights themselves."""
    return [each for model in models for each in parts_of(model)]


@torch.no_grad()
def parts_of(model: Any) -> list[object]:
    parts: list[object] = []
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, dict) and name != "_kept":
                parts += value.values()
            elif name != "_kept":
                parts.append(value)
    tensors = [*model.parameters(), *model.buffers()]
    parts += [(t._version, t.data_ptr(), t.dtype, t.requires_grad) for t in tensors]
    parts += [t.grad for t in tensors]
    # Writing to `.data` makes no other version of a tensor.
    norms = torch.stack(torch._foreach_norm([t for t in tensors if t.is_floating_point()]))
    return [*parts, tuple(norms.tolist()), str(vars(model.config)), str(vars(model.generation_config))]
