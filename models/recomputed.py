"""Attention weights computed by the model's own function from recorded queries and keys, and their gradients."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from decomp.core.operators.attention import TARGET_BLOCK, strips
from decomp.core.readout_rows import ReadoutRows
from decomp.models.precision import own_precision
from decomp.models.running import running

RECORDING = "decomp_recording"
"""The name of the attention implementation that records queries and keys."""
STRIP_BYTES = 2**26
"""The bytes of attention scores that are computed at a time, at most."""


def eager_function(module: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the eager attention function of a module: its own, or that of the Python module that defines it."""
    if hasattr(module, "eager_attention"):
        own: Callable[..., tuple[Tensor, Tensor]] = module.eager_attention
        return own
    files = (sys.modules[cls.__module__] for cls in type(module).__mro__)
    return next(partial(f.eager_attention_forward, module) for f in files if hasattr(f, "eager_attention_forward"))


def recording_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """Compute the model's eager attention, and record its queries and keys, from which weights can be recomputed."""
    eager = eager_function(module)
    module.recorded = (eager, query, key, attention_mask, options)
    step, length = targets_at_once(query, key), query.shape[2]
    if step >= length:
        return eager(query, key, value, attention_mask, **options)
    outputs = [
        eager(
            query[:, :, first:last],
            key[:, :, :last],
            value[:, :, :last],
            attention_mask[:, :, first:last, :last],
            **options,
        )[0]
        for first, last in strips(length, step)
    ]
    # Outputs are (B, H, T, V), (B, T, H, V) or (B · H, T, V), as the architecture has them.
    heads_first = outputs[0].ndim == 4 and outputs[0].shape[1:3] == (query.shape[1], step)
    return torch.cat(outputs, 2 if heads_first else 1), None


def targets_at_once(query: Float[Tensor, "B H T V"], key: Float[Tensor, "B K T V"]) -> int:
    """Return the number of targets whose scores are computed together; never equal to the number of heads.

    Otherwise the axes of heads and of targets could be confused.
    """
    batch, heads = query.shape[:2]
    fitting = STRIP_BYTES // (batch * heads * key.shape[2] * query.element_size())
    step = min(TARGET_BLOCK, max(1, fitting))
    return step + (step == heads)


AttentionInterface.register(RECORDING, recording_attention)
AttentionMaskInterface.register(RECORDING, eager_mask)


@dataclass(frozen=True)
class RecomputedAttention:
    """The attention weights of one layer on one text, computed when they are needed.

    They are exactly those of the model's forward pass: with a float32 softmax, rows sum to 1 only up to 1e-7.
    """

    model: PreTrainedModel
    module: Any
    eager: Callable[..., tuple[Tensor, Tensor]]
    query: Float[Tensor, "1 H T V"]
    key: Float[Tensor, "1 K T V"]
    mask: Float[Tensor, "1 1 T T"]
    options: dict[str, Any]
    call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    """The arguments that the attention module was called with; None unless recorded for gradients."""

    @property
    def nbytes(self) -> int:
        """Return the bytes held."""
        # Both may be views of one joint projection; the mask is one for all layers.
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in (self.query, self.key)}
        return sum(storages.values())

    def __call__(self, first: int, last: int) -> Float[Tensor, "H targets last"]:
        """Return the attention weights of the targets [first, last) on the positions before `last`, for every head."""
        return self.weights(self.query[:, :, first:last], self.key[:, :, :last], slice(first, last), slice(last))

    def weights(
        self, query: Float[Tensor, "1 H t V"], key: Float[Tensor, "1 K T V"], targets: slice, positions: slice
    ) -> Float[Tensor, "H t T"]:
        """Return attention weights, computed by the model's own function."""
        with own_precision(query.dtype):
            # The values do not matter, their width may: some versions of transformers scale by it.
            _, weights = self.eager(query, key, key, self.mask[:, :, targets, positions], **self.options)
        return weights[0]

    def to_inputs(self, g: Float[Tensor, "N H P stop"], at: ReadoutRows) -> Float[Tensor, "N stop D"]:
        """Return gradients with respect to the attention's input, from those with respect to the attention weights."""
        to_queries, to_keys = self.own_rows(g, at) if at.own else self.shared_rows(g, at)
        x, query, key = self.queries_and_keys()
        padding = (0, 0, 0, len(x[0]) - at.stop)
        grads = [torch.nn.functional.pad(part, padding) for part in (to_queries, to_keys)]
        (inner,) = torch.autograd.grad((query, key), x, grads, is_grads_batched=True)
        return inner[:, 0, : at.stop]

    def shared_rows(self, g: Float[Tensor, "N H stop stop"], at: ReadoutRows) -> tuple[Tensor, Tensor]:
        """Return gradients of queries and keys (N, 1, H, stop, V), from those of the weights of all targets."""
        positions = slice(0, at.stop)
        with torch.enable_grad():
            query, key = (part[:, :, positions].detach().requires_grad_() for part in (self.query, self.key))
            weights = self.weights(query, key, positions, positions)
        to_queries, to_keys = torch.autograd.grad(weights, (query, key), g, is_grads_batched=True)
        return to_queries, to_keys

    def own_rows(self, g: Float[Tensor, "N H 1 stop"], at: ReadoutRows) -> tuple[Tensor, Tensor]:
        """Return gradients of queries and keys, from those of the weights of each readout's own target alone."""
        to_queries = self.query.new_zeros(len(g), *self.query[:, :, : at.stop].shape)
        to_keys = self.key.new_zeros(len(g), *self.key[:, :, : at.stop].shape)
        for number, target in enumerate(at.targets):
            row, positions = slice(target, target + 1), slice(0, target + 1)
            with torch.enable_grad():
                query = self.query[:, :, row].detach().requires_grad_()
                key = self.key[:, :, positions].detach().requires_grad_()
                weights = self.weights(query, key, row, positions)
            to_query, to_key = torch.autograd.grad(weights, (query, key), g[number, :, :, positions])
            to_queries[number, :, :, row], to_keys[number, :, :, positions] = to_query, to_key
        return to_queries, to_keys

    def queries_and_keys(self) -> tuple[Float[Tensor, "1 T D"], Tensor, Tensor]:
        """Return the attention's input with queries and keys that depend on it, by the model's own forward method."""
        assert self.call is not None
        args, kwargs = self.call
        given = args[0] if args else kwargs["hidden_states"]
        x = given.detach().requires_grad_()
        asked = ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})
        with torch.enable_grad(), running(self.model, RECORDING):
            self.module.forward(*asked[0], **asked[1])
            _, query, key, _, _ = self.module.__dict__.pop("recorded")
        return x, query, key
