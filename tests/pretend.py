"""A pretend accelerator: tensors that say they are on `cuda`, and compute on the CPU.

What a real accelerator would refuse is refused: a product of tensors that are on different devices, a NumPy array of a
tensor that is not on the CPU. So where tensors are can be tested on any machine.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map

CUDA = torch.device("cuda", 0)
MOVES = {Tensor.to, Tensor.cuda, Tensor.cpu, Tensor.copy_}
INDEXING = {Tensor.__getitem__, Tensor.__setitem__}
"""A tensor on an accelerator may be indexed by one on the CPU; not the other way round."""
TO_NUMPY = {Tensor.numpy, Tensor.__array__}


class OnDevice(Tensor):
    """A tensor of the pretend accelerator."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnDevice":
        return placed(self.as_subclass(Tensor).clone())


def placed(value: Any) -> Any:
    """Return a tensor as one of the pretend accelerator, and anything else as it is."""
    if not isinstance(value, Tensor) or isinstance(value, OnDevice):
        return value
    return value.as_subclass(OnDevice)


def brought(value: Any) -> Any:
    """Return a tensor of the pretend accelerator as one of the CPU, and anything else as it is."""
    return value.as_subclass(Tensor) if isinstance(value, OnDevice) else value


def is_cuda(device: Any) -> bool:
    return isinstance(device, torch.device | str) and torch.device(device).type == "cuda"


class PretendDevice(TorchFunctionMode):
    """Within it, `cuda` is a device. Raises RuntimeError where a computation would mix devices."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [each for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)]
        there = any(isinstance(each, OnDevice) for each in tensors)
        if func is torch._has_compatible_shallow_copy_type:
            return False  # so that a module that is moved gets new parameters
        if func in MOVES:
            return move(func, args, kwargs)
        if there and func in TO_NUMPY:
            raise TypeError("can't convert a tensor of cuda to numpy: copy it to the CPU first")
        if there:
            check_together(func, args, tensors)
        if "device" in kwargs:
            there = is_cuda(kwargs["device"])
            kwargs["device"] = torch.device("cpu")
        result = func(*args, **kwargs)
        found = any(isinstance(each, Tensor) for each in tree_iter(result))  # a shape is to stay a torch.Size
        return tree_map(placed, result) if there and found else result


def check_together(func: Callable[..., Any], args: tuple[Any, ...], tensors: list[Tensor]) -> None:
    """Raise RuntimeError for a tensor of the CPU that has dimensions, beside one of the accelerator."""
    if func in INDEXING and isinstance(args[0], OnDevice):
        tensors = [each for each in args[2:] if isinstance(each, Tensor)]
    for each in tensors:
        if not isinstance(each, OnDevice) and each.dim():
            shapes = [(tuple(one.shape), str(one.device)) for one in tensors]
            raise RuntimeError(f"Expected all tensors to be on the same device: {func.__name__} of {shapes}")


def move(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a tensor is on the device that is asked for; copying is allowed from any to any."""
    here, *rest = args
    if func is Tensor.copy_:
        here.as_subclass(Tensor).copy_(brought(rest[0]), **kwargs)
        return here
    asked = [each for each in (*rest, *kwargs.values()) if isinstance(each, torch.device | str)]
    others = [each for each in rest if isinstance(each, Tensor)]
    if func is Tensor.cpu:
        there = False
    elif asked:
        there = is_cuda(asked[-1])
    else:
        there = isinstance((others or [here])[0], OnDevice)
    cpu = tree_map(lambda value: torch.device("cpu") if is_cuda(value) else brought(value), (rest, kwargs))
    result = brought(here) if func in (Tensor.cpu, Tensor.cuda) else func(brought(here), *cpu[0], **cpu[1])
    if there is isinstance(here, OnDevice):
        return here if result is brought(here) else (placed(result) if there else result)
    return placed(result.clone()) if there else result.clone()


@contextmanager
def pretending() -> Iterator[None]:
    """Have a device `cuda` that any machine has."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with pytest.MonkeyPatch.context() as patch, PretendDevice():
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "device_count", lambda: 1)
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
