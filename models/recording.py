"""One ordinary forward pass, and what hooks keep of it: the operating point, in the model's own numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from decomp.core.rules import ActivationRule, FrozenSublayer, linearise
from decomp.models.sites import AttentionSite, MLPSite, Site, affine, norm

RECORDING = "decomp_recording"


def recording_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    """The model's eager attention; keeps its queries and keys, from which the weights can be had again."""
    module.recorded = RecomputedAttention(module, query, key, attention_mask, options)
    return module.eager_attention(query, key, value, attention_mask, **options)


@dataclass(frozen=True)
class RecomputedAttention:
    """Attention rows by the model's own function on its own queries and keys, in full rows.

    Weights that the model computed with a float32 softmax come out as the model used them: rows that
    sum to 1 only to 1e-7 included.
    """

    module: Any
    query: Float[Tensor, "1 H T V"]
    key: Float[Tensor, "1 H T V"]
    mask: Float[Tensor, "1 1 T T"]
    options: dict[str, Any]

    @property
    def nbytes(self) -> int:
        # Both may be views of one joint projection; the mask is one for all layers.
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in (self.query, self.key)}
        return sum(storages.values())

    def __call__(self, first: int, last: int) -> Float[Tensor, "H targets T"]:
        # The values do not matter, their width may: some versions of transformers scale by it.
        _, weights = self.module.eager_attention(
            self.query[:, :, first:last], self.key, self.key, self.mask[:, :, first:last], **self.options
        )
        return weights[0]


AttentionInterface.register(RECORDING, recording_attention)
AttentionMaskInterface.register(RECORDING, eager_mask)


class Tape:
    """What hooks keep during one forward pass: as little as can be, at once."""

    def __init__(self, rule: ActivationRule, for_gradients: bool) -> None:
        self.rule, self.for_gradients = rule, for_gradients
        self.states: list[Float[Tensor, "T D"]] = []
        """The inputs of the blocks watched, and the output of the last."""
        self.inverse_std: dict[nn.Module | None, Float[Tensor, " T"]] = {}
        self.standardised: dict[nn.Module | None, Float[Tensor, "T D"]] = {}
        self.lines: dict[nn.Module, tuple[Float[Tensor, "T F"], Float[Tensor, "T D"] | None]] = {}

    def keep_state(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The hidden state that a block is given."""
        hidden = args[0] if args else kwargs["hidden_states"]
        self.states.append(hidden[0])

    def keep_last(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.states.append(output[0])

    def keep_inverse_std(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        frozen = norm(module)
        assert frozen is not None
        x = args[0].reshape(-1, args[0].shape[-1])
        self.inverse_std[module] = frozen.inverse_std(x)
        if self.for_gradients:
            self.standardised[module] = frozen.standardise(x, self.inverse_std[module])

    def keep_line(self, site: MLPSite, module: nn.Module, args: tuple[Tensor, ...], pre_activation: Tensor) -> None:
        """Slopes, and the intercepts as what they add to the output."""
        a = pre_activation.reshape(-1, pre_activation.shape[-1])
        slope, intercept = linearise(site.activation, a, self.rule)
        # Gradients have no use for intercepts.
        offset = affine(site.down)(intercept, affine=False) if not self.for_gradients and intercept.any() else None
        self.lines[site.up] = (slope, offset)

    def frozen(self, site: Site) -> FrozenSublayer:
        """The operating point of one sublayer."""
        norms = FrozenSublayer(
            inverse_std_before=self.inverse_std.get(site.norm_before),
            inverse_std_after=self.inverse_std.get(site.norm_after),
            standardised_before=self.standardised.get(site.norm_before),
            standardised_after=self.standardised.get(site.norm_after),
        )
        if isinstance(site.body, AttentionSite):
            return replace(norms, attention=site.body.module.recorded)
        slope, offset = self.lines[site.body.up]
        return replace(norms, slope=slope, offset=offset)


def starting_from(
    embedding: Float[Tensor, "T D"], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Gives a block another state than the embeddings made."""
    if args:
        return (embedding[None], *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": embedding[None]}


@contextmanager
def running(model: PreTrainedModel, attention: str) -> Iterator[None]:
    """Evaluation mode and an implementation of attention, undone at the end."""
    before, training = model.config._attn_implementation, model.training
    try:
        model.eval()
        model.config._attn_implementation = attention
        yield
    finally:
        model.config._attn_implementation = before
        model.train(training)


@contextmanager
def recording(
    model: PreTrainedModel,
    blocks: Sequence[Any],
    final_norm: nn.Module | None,
    rule: ActivationRule,
    every_layer: bool,
    embedding: Float[Tensor, "T D"] | None = None,
) -> Iterator[Tape]:
    """Evaluation mode, eager attention, and hooks on every site, all undone at the end.

    With an `embedding` the blocks start from it, and what gradients need is kept too.
    """
    tape, handles = Tape(rule, embedding is not None), []
    sites = [site for block in blocks for site in block.sites()]
    norms = {m for site in sites for m in (site.norm_before, site.norm_after)} | {final_norm}
    mlps = [site.body for site in sites if isinstance(site.body, MLPSite)]
    try:
        if embedding is not None:
            handles.append(blocks[0].register_forward_pre_hook(partial(starting_from, embedding), with_kwargs=True))
        for block in blocks if every_layer else blocks[:1]:
            handles.append(block.register_forward_pre_hook(tape.keep_state, with_kwargs=True))
        if every_layer:
            handles.append(blocks[-1].register_forward_hook(tape.keep_last))
        for module in norms:
            if module is not None:
                handles.append(module.register_forward_pre_hook(tape.keep_inverse_std))
        for body in mlps:
            handles.append(body.up.register_forward_hook(partial(tape.keep_line, body)))
        with running(model, RECORDING):
            yield tape
    finally:
        for handle in handles:
            handle.remove()
        for site in sites:
            if isinstance(site.body, AttentionSite):
                site.body.module.__dict__.pop("recorded", None)
