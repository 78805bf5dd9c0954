"""What an architecture fills in, and what it gets for that: recording, decomposition, chunks."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.pytorch_utils import Conv1D

import decomp
from decomp.ablation import Unembedding
from decomp.decomposition import Decomposition, assemble
from decomp.engine import Chunk, FoldedNetwork, fold, propagate
from decomp.memory import DEFAULT_MEMORY, parse_bytes
from decomp.propagation import (
    ActivationRule,
    Affine,
    AttentionMaps,
    FrozenSublayer,
    MLPMaps,
    Network,
    Norm,
    OperatingPoint,
    Sublayer,
    linearise,
    propagate_stream,
)

RECORDING = "decomp_recording"
T = TypeVar("T")


@dataclass(frozen=True)
class AttentionSite:
    """Where one self-attention keeps its weights; `module` has an `eager_attention`."""

    module: Any
    value: Affine
    output: Affine
    heads: int


@dataclass(frozen=True)
class MLPSite:
    """Where one MLP keeps its weights; `up` gives the pre-activations."""

    up: nn.Module
    down: nn.Module
    activation: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Site:
    """One sublayer as an architecture describes it."""

    body: AttentionSite | MLPSite
    norm_before: nn.Module | None
    norm_after: nn.Module | None

    def sublayer(self) -> Sublayer:
        body = self.body
        maps: AttentionMaps | MLPMaps
        if isinstance(body, AttentionSite):
            maps = AttentionMaps(body.value, body.output, body.heads)
        else:
            maps = MLPMaps(affine(body.up), affine(body.down))
        return Sublayer(maps, norm(self.norm_before), norm(self.norm_after))


def affine(module: nn.Module) -> Affine:
    """The map of a Linear (weights transposed, a view) or a Conv1D."""
    if not isinstance(module, nn.Linear | Conv1D):
        raise TypeError(f"expected a Linear or Conv1D, got {type(module).__name__}")
    weight = module.weight.T if isinstance(module, nn.Linear) else module.weight
    return Affine(weight.detach(), None if module.bias is None else module.bias.detach())


def norm(module: nn.Module | None) -> Norm | None:
    """The parameters of a LayerNorm."""
    if module is None:
        return None
    if not isinstance(module, nn.LayerNorm):
        raise TypeError(f"expected a LayerNorm, got {type(module).__name__}")
    weight, bias = module.weight, module.bias
    return Norm(None if weight is None else weight.detach(), None if bias is None else bias.detach(), float(module.eps))


def recording_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    """The model's eager attention; keeps its queries and keys, from which the weights can be had again."""
    module.recorded = {"query": query, "key": key, "mask": attention_mask, "options": options}
    return module.eager_attention(query, key, value, attention_mask, **options)


AttentionInterface.register(RECORDING, recording_attention)
AttentionMaskInterface.register(RECORDING, eager_mask)


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

    def __call__(self, first: int, last: int) -> Float[Tensor, "H targets T"]:
        _, weights = self.module.eager_attention(
            self.query[:, :, first:last], self.key, self.key[..., :0], self.mask[:, :, first:last], **self.options
        )
        return weights[0]


def model_label(name: str) -> str:
    """The last part of a model's name, which file names carry."""
    return Path(name).resolve().name if Path(name).is_dir() else name.rstrip("/").rsplit("/", 1)[-1]


def fold_network(model: "DecomposedModel") -> FoldedNetwork:
    return fold(model.network())


def weights_digest(model: "DecomposedModel") -> str:
    """SHA-256 of all parameters as they are, shortened."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


class DecomposedModel(PreTrainedModel):
    """Mixin for a `…ForCausalLM` class whose blocks describe their `sites`."""

    def blocks(self) -> Sequence[Any]:
        """The decomposed blocks; each has `sites()`."""
        raise NotImplementedError

    def final_modules(self) -> tuple[nn.Module | None, nn.Module | None]:
        """The final norm and `project_out`."""
        raise NotImplementedError

    def max_length(self) -> int:
        """Positions of the model, the beginning-of-sequence token included."""
        return int(self.config.max_position_embeddings)

    def network(self) -> Network:
        """The weights that contributions meet, as views."""
        final_norm, project_out = self.final_modules()
        return Network(
            tuple(tuple(site.sublayer() for site in block.sites()) for block in self.blocks()),
            norm(final_norm),
            None if project_out is None else affine(project_out),
        )

    def until_weights_change(self, make: Callable[["DecomposedModel"], T]) -> T:
        """`make(self)`, made again only after a weight has changed."""
        key = tuple((p.data_ptr(), p._version, p.dtype, p.device) for p in self.parameters())
        kept = self.__dict__.setdefault("_kept", {})
        if make not in kept or kept[make][0] != key:
            kept[make] = (key, make(self))
        return kept[make][1]

    def folded(self) -> FoldedNetwork:
        """The network with its norms folded in."""
        return self.until_weights_change(fold_network)

    def about(self) -> dict[str, str]:
        """Which model this is, for what is made with it."""
        return {
            "version": decomp.__version__,
            "model": model_label(self.name_or_path or self.config.model_type),
            "revision": getattr(self.config, "_commit_hash", None) or "",
            "weights": self.until_weights_change(weights_digest),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def unembedding(self) -> Unembedding:
        head = self.get_output_embeddings()
        assert isinstance(head, nn.Linear)
        return Unembedding(head.weight.detach(), None if head.bias is None else head.bias.detach())

    @torch.no_grad()
    def record(
        self,
        input_ids: Int[Tensor, " T"],
        position_ids: Int[Tensor, " T"] | None = None,
        activation_rule: ActivationRule = "tangent",
        output_layers: bool = False,
    ) -> OperatingPoint:
        """One ordinary forward pass of one text, everything frozen that propagation needs.

        ValueError if the hidden states are not finite.
        """
        check_ids(input_ids, self.max_length() if position_ids is None else None, self.config.vocab_size)
        with recording(self) as tape:
            options = {} if position_ids is None else {"position_ids": position_ids[None]}
            hidden = self.base_model(input_ids=input_ids[None], use_cache=False, **options).last_hidden_state[0]
            check_finite(hidden)
            blocks = tuple(
                tuple(freeze(site, tape, activation_rule) for site in block.sites()) for block in self.blocks()
            )
        final_norm, _ = self.final_modules()
        states = tuple(tape.inputs[block] for block in self.blocks())
        return OperatingPoint(
            embedding=states[0],
            blocks=blocks,
            final_inverse_std=tape.inverse_std(final_norm),
            hidden_layers=(*states, tape.outputs[self.blocks()[-1]]) if output_layers else (),
            hidden=hidden,
        )

    def decompose(
        self,
        input_ids: Int[Tensor, "1 T"],
        *,
        attention_mask: Int[Tensor, "1 T"] | None = None,
        position_ids: Int[Tensor, "1 T"] | None = None,
        decomposition_length: int | None = None,
        activation_rule: ActivationRule = "tangent",
        output_layers: bool = False,
        memory: int | str = DEFAULT_MEMORY,
    ) -> Decomposition:
        """The exact decomposition of one text's final hidden states (Oh & Schuler 2023).

        `decomposition_length`: most recent sources kept per target, all by default. `memory`: of the
        buffers, beside the result. ValueError for ids of another shape, non-finite hidden states, a
        length below 1.
        """
        if input_ids.shape[:-1].numel() != 1:
            raise ValueError(
                f"decompose takes one text, input_ids of shape (T,) or (1, T), not {tuple(input_ids.shape)}: "
                "use decompose_batch for several"
            )
        (result,) = self.decompose_batch(
            input_ids.view(1, -1),
            attention_mask=None if attention_mask is None else attention_mask.view(1, -1),
            position_ids=None if position_ids is None else position_ids.view(1, -1),
            decomposition_length=decomposition_length,
            activation_rule=activation_rule,
            output_layers=output_layers,
            memory=memory,
        )
        return result

    @torch.no_grad()
    def decompose_batch(
        self,
        input_ids: Int[Tensor, "B T"] | Sequence[Int[Tensor, " T"]],
        *,
        attention_mask: Int[Tensor, "B T"] | None = None,
        position_ids: Int[Tensor, "B T"] | None = None,
        decomposition_length: int | None = None,
        activation_rule: ActivationRule = "tangent",
        output_layers: bool = False,
        memory: int | str = DEFAULT_MEMORY,
    ) -> list[Decomposition]:
        """One decomposition per text, padding taken off; errors as for `decompose`."""
        texts = unpad(input_ids, attention_mask, position_ids)
        points = [self.record(ids, places, activation_rule, output_layers) for ids, places in texts]
        length = check_decomposition_length(decomposition_length, max(len(p) for p in points))
        network = self.network()
        biases = [list(propagate_stream(torch.zeros_like(p.embedding), network, p, affine=True)) for p in points]
        sums = [list(propagate_stream(p.embedding, network, p, affine=False)) for p in points]
        packed = assemble(self.folded(), points, length, parse_bytes(memory), output_layers)
        about = {**self.about(), "activation_rule": activation_rule}
        return [
            Decomposition.from_streams(ids.cpu(), length, point, bias, total, rows, self.unembedding(), about)
            for (ids, _), point, bias, total, rows in zip(texts, points, biases, sums, packed, strict=True)
        ]

    @torch.no_grad()
    def iter_contributions(
        self,
        input_ids: Int[Tensor, "B T"] | Sequence[Int[Tensor, " T"]],
        *,
        attention_mask: Int[Tensor, "B T"] | None = None,
        position_ids: Int[Tensor, "B T"] | None = None,
        decomposition_length: int | None = None,
        activation_rule: ActivationRule = "tangent",
        memory: int | str = DEFAULT_MEMORY,
    ) -> Iterator[Chunk]:
        """Contributions in chunks of sources, in bounded memory; each chunk is valid until the next."""
        texts = unpad(input_ids, attention_mask, position_ids)
        points = [self.record(ids, places, activation_rule) for ids, places in texts]
        length = check_decomposition_length(decomposition_length, max(len(p) for p in points))
        yield from propagate(self.folded(), points, length, parse_bytes(memory))


class Tape:
    """What hooks saw during one forward pass."""

    def __init__(self) -> None:
        self.inputs: dict[nn.Module, Tensor] = {}
        self.outputs: dict[nn.Module, Tensor] = {}

    def keep_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        self.inputs[module] = hidden.reshape(-1, hidden.shape[-1])

    def keep_output(self, module: nn.Module, args: tuple[Any, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        self.outputs[module] = hidden.reshape(-1, hidden.shape[-1])

    def inverse_std(self, module: nn.Module | None) -> Float[Tensor, " T"] | None:
        frozen = norm(module)
        return None if module is None or frozen is None else frozen.inverse_std(self.inputs[module])


@contextmanager
def recording(model: DecomposedModel) -> Iterator[Tape]:
    """Evaluation mode, eager attention, and hooks on every site, all undone at the end."""
    tape, handles = Tape(), []
    attention, training = model.config._attn_implementation, model.training
    final_norm, _ = model.final_modules()
    sites = [site for block in model.blocks() for site in block.sites()]
    norms = [m for site in sites for m in (site.norm_before, site.norm_after) if m is not None]
    ups = [site.body.up for site in sites if isinstance(site.body, MLPSite)]
    inputs = [m for m in (*model.blocks(), *norms, final_norm) if m is not None]
    try:
        handles += [m.register_forward_pre_hook(tape.keep_input, with_kwargs=True) for m in inputs]
        handles += [m.register_forward_hook(tape.keep_output) for m in [*ups, model.blocks()[-1]]]
        model.eval()
        model.config._attn_implementation = RECORDING
        yield tape
    finally:
        model.config._attn_implementation = attention
        model.train(training)
        for handle in handles:
            handle.remove()
        for site in sites:
            if isinstance(site.body, AttentionSite):
                site.body.module.__dict__.pop("recorded", None)


def freeze(site: Site, tape: Tape, rule: ActivationRule) -> FrozenSublayer:
    """The operating point of one sublayer."""
    before, after = tape.inverse_std(site.norm_before), tape.inverse_std(site.norm_after)
    body = site.body
    if isinstance(body, AttentionSite):
        return FrozenSublayer(before, after, attention=RecomputedAttention(body.module, **body.module.recorded))
    slope, intercept = linearise(body.activation, tape.outputs[body.up], rule)
    offset = affine(body.down)(intercept, affine=False) if intercept.any() else None
    return FrozenSublayer(before, after, slope=slope, offset=offset)


def unpad(
    input_ids: Tensor | Sequence[Tensor], attention_mask: Tensor | None, position_ids: Tensor | None
) -> list[tuple[Int[Tensor, " T"], Int[Tensor, " T"] | None]]:
    """Ids and positions of each text without its padding."""
    texts = []
    for b, ids in enumerate(input_ids):
        if ids.ndim != 1:
            raise ValueError(f"input_ids must be (B, T) or a list of (T,), a text has shape {tuple(ids.shape)}")
        keep = slice(None) if attention_mask is None else attention_mask[b].bool()
        kept = ids[keep]
        if len(kept) == 0:
            raise ValueError(f"text {b} of the batch has no tokens: leave it out")
        texts.append((kept, None if position_ids is None else position_ids[b][keep]))
    if not texts:
        raise ValueError("the batch has no texts: give at least one")
    return texts


def check_decomposition_length(decomposition_length: int | None, longest: int) -> int:
    if decomposition_length is None:
        return longest
    if decomposition_length < 1:
        raise ValueError(f"the decomposition length must be at least 1 (the target itself), not {decomposition_length}")
    return decomposition_length


def check_ids(ids: Int[Tensor, " T"], positions: int | None, vocab: int) -> None:
    if positions is not None and len(ids) > positions:
        raise ValueError(f"a text has {len(ids)} tokens, the model has {positions} positions: cut it into windows")
    if int(ids.max()) >= vocab or int(ids.min()) < 0:
        outside = ids[(ids >= vocab) | (ids < 0)][0]
        raise ValueError(f"token id {int(outside)} is not in the model's vocabulary of {vocab}: is it its tokenizer?")


def check_finite(hidden: Tensor) -> None:
    finite = hidden.isfinite().all(-1)
    if not finite.all():
        raise ValueError(
            f"the model's hidden state is not finite at position {int((~finite).nonzero()[0])}: "
            "check its weights, or use a dtype with more range (float32 instead of float16)"
        )
