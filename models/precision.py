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
        if args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            if function is torch.Tensor.float:
                return args[0]
            args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
            kwargs = {name: torch.float64 if value is torch.float32 else value for name, value in kwargs.items()}
        return function(*args, **kwargs)


@contextmanager
def own_precision(dtype: torch.dtype) -> Iterator[None]:
    """Compute a float64 model in float64 throughout; other dtypes as transformers does."""
    if dtype == torch.float64:
        with KeepDouble():
            yield
    else:
        yield
