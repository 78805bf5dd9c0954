"""Keeping float64 models in float64 where transformers would round values to float32 on the way."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class KeepDouble(TorchFunctionMode):
    """A mode of torch in which float64 tensors are not converted to float32, nor their softmax computed in it.

    Transformers has such conversions in attention and norms, for the sake of half precision; in double precision they
    would leave errors of 1e-7.
    """

    def __torch_function__(
        self, function: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not asks_for_float32(function, args, kwargs) or not is_double(next(iter(args), None)):
            return function(*args, **kwargs)
        if function is torch.Tensor.float:
            return args[0]
        args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
        return function(*args, **{k: torch.float64 if v is torch.float32 else v for k, v in kwargs.items()})


def asks_for_float32(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a call names float32; every operation of a forward pass is asked."""
    for value in (*args, *kwargs.values()):
        if value is torch.float32:
            return True
    return function is torch.Tensor.float


def is_double(value: Any) -> bool:
    """Return whether a value is a float64 tensor."""
    return isinstance(value, Tensor) and value.dtype == torch.float64


@contextmanager
def own_precision(dtype: torch.dtype) -> Iterator[None]:
    """Compute a float64 model in float64 throughout; other dtypes as transformers does."""
    if dtype == torch.float64:
        with KeepDouble():
            yield
    else:
        yield
