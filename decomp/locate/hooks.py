"""Capturing the outputs of a model's modules during forward passes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def capturing(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Give a list that the first output of each module is appended to, in order of calls, while the context is open.

    If gradients are computed, they can be taken with respect to these outputs.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        first: Tensor = output[0] if isinstance(output, tuple) else output
        if torch.is_grad_enabled() and not first.requires_grad:
            first.requires_grad_()
        kept.append(first)

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
