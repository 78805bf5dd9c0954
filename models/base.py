"""What an architecture fills in, and what it gets for that: recording, decomposition, chunks."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, GenerationMixin, PreTrainedModel

import decomp
from decomp.core.ablation import Unembedding
from decomp.core.decomposition import Decomposition, assemble
from decomp.core.engine import Chunk, propagate
from decomp.core.folding import FoldedNetwork
from decomp.core.model import Patch
from decomp.core.network import Affine, Network
from decomp.core.operating_point import OperatingPoint
from decomp.core.partition import Labels, Partition, partitions_of
from decomp.core.rules import ActivationRule, GateRule, Rules
from decomp.io.amounts import DEFAULT_MEMORY, parse_bytes
from decomp.models.checks import check_temperature
from decomp.models.patching import patching
from decomp.models.precision import own_precision
from decomp.models.recording import Tape, operating_point, recording
from decomp.models.running import alone, exclusive, running
from decomp.models.sites import AttentionSite, BranchSite, MLPSite, Projection, StageSite, affine, norm

T = TypeVar("T")
STANDARD = Rules()
SLIDING = "sliding_attention"
"""How configs call layers with a sliding window."""


def model_label(name: str) -> str:
    """Return the last part of a model's name, which file names carry."""
    return Path(name).resolve().name if Path(name).is_dir() else name.rstrip("/").rsplit("/", 1)[-1]


def network_of(model: "DecomposedModel") -> Network:
    """Return a model's weights as data."""
    return Network(
        tuple(tuple(site.stage() for site in block) for block in model.sites()),
        norm(model.final_norm()),
        None if (project_out := model.project_out()) is None else affine(project_out),
    )


def fold_network(model: "DecomposedModel") -> FoldedNetwork:
    """Return the folded network for the gate rule `frozen`, under which gates carry nothing."""
    return FoldedNetwork(model.network().without_gates())


def fold_with_gates(model: "DecomposedModel") -> FoldedNetwork:
    """Return the folded network for the gate rule `half`."""
    return FoldedNetwork(model.network())


def weights_digest(model: "DecomposedModel") -> str:
    """Return the SHA-256 of all parameters as they are, shortened."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


class DecomposedModel(PreTrainedModel):
    """Mixin for a `…ForCausalLM` class whose blocks' stages its `stages` describes."""

    unsupported: ClassVar[dict[str, str]] = {}
    """What this architecture can't do, by name of the feature, and why."""

    adds_positions: ClassVar[bool] = False
    """Whether embeddings of positions are added to those of tokens."""

    blocks_at: ClassVar[str] = "layers"
    final_norm_at: ClassVar[str] = "norm"
    """Where the base model has its blocks, and the norm after the last."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Mixins that several families share have no forward method yet.
        if issubclass(cls, GenerationMixin):
            cls.forward = alone(cls.forward)

    def stages(self, block: Any) -> tuple[StageSite, ...]:
        """Return where one block keeps its weights."""
        raise NotImplementedError

    weights_note: str = ""
    """What was done to the weights when they were loaded (`dequantised from GGUF`)."""

    def blocks(self) -> Sequence[Any]:
        """Return the blocks in order."""
        return list(attrgetter(self.blocks_at)(self.base_model))

    def final_norm(self) -> nn.Module | None:
        """Return the norm after the last block, where there is one."""
        norm: nn.Module | None = attrgetter(self.final_norm_at)(self.base_model)
        return norm

    def project_in(self) -> nn.Module | None:
        """Return the map from token embeddings to the hidden width, where there is one."""
        return None

    def project_out(self) -> nn.Module | None:
        """Return the map from the hidden width to that of the unembedding, where there is one."""
        return None

    def require(self, feature: str) -> None:
        """Raise ValueError, in the architecture's own words, where it does not support a feature."""
        if feature in self.unsupported:
            raise ValueError(f"{self.config.model_type} models don't support {feature}: {self.unsupported[feature]}")

    def token_embeddings(self) -> tuple[Float[Tensor, "V E"], Affine | None]:
        """Return the embedding matrix, and the map that brings it to the hidden width."""
        project_in = self.project_in()
        return self.get_input_embeddings().weight.detach(), None if project_in is None else affine(project_in)

    def default_baseline(self, positions: bool) -> str:
        """Return the baseline that integrated gradients converge from, of token embeddings or with their positions.

        `zero` where a position is added to it, else `mean`: a norm turns any multiple of a state, however small, into
        the same, and leaps at zero.
        """
        return "zero" if self.adds_positions and not positions else "mean"

    def max_length(self) -> int:
        """Return the positions of the model, the beginning-of-sequence token included."""
        return int(self.config.max_position_embeddings)

    def sites(self) -> list[tuple[StageSite, ...]]:
        """Return where every block keeps its weights."""
        return [self.stages(block) for block in self.blocks()]

    def branch_sites(self) -> list[BranchSite]:
        """Return every attention and MLP of the model with its norms, in network order."""
        return [branch for block in self.sites() for stage in block for branch in stage.branches]

    def network(self) -> Network:
        """Return the weights that contributions meet, as views where that is possible."""
        return self.until_weights_change(network_of)

    def modules_of(self, component: str) -> list[nn.Module]:
        """Return per block the module whose output its `attention` or `mlp` adds to the stream, or the block itself."""
        if component == "residual":
            return list(self.blocks())
        return [site.last for site in self.branch_sites() if site.body.kind == component]

    def neuron_modules(self) -> list[nn.Module]:
        """Return per block the module that is given the neurons of its MLP, after their activation and gate."""
        self.require("neurons")
        return [site.body.last for site in self.branch_sites() if site.body.kind == "mlp"]

    def pre_activations(self) -> list[Projection]:
        """Return per block which columns of which module's output the activation of its MLP is given."""
        self.require("neurons")
        bodies = [site.body for site in self.branch_sites()]
        return [body.up if body.gate is None else body.gate for body in bodies if isinstance(body, MLPSite)]

    def neurons_shape(self) -> tuple[int, int]:
        """Return the number of layers, and of neurons in each."""
        downs = self.neuron_modules()
        return len(downs), affine(downs[0]).weight.shape[0]

    def attention_projections(self) -> list[tuple[Affine, Affine, Affine]]:
        """Return per layer the maps to queries, keys and values."""
        return [site.body.projections() for site in self.branch_sites() if isinstance(site.body, AttentionSite)]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run a model for one thread, in evaluation mode and its own precision, while hooks of one's own are on it."""
        with running(self, self.config._attn_implementation):
            yield

    @contextmanager
    def weights_frozen(self) -> Iterator[None]:
        """Run alone (see `alone`), without gradients of weights; undone at the end."""
        with self.alone():
            trained = [p for p in self.parameters() if p.requires_grad]
            try:
                for parameter in trained:
                    parameter.requires_grad_(False)
                yield
            finally:
                for parameter in trained:
                    parameter.requires_grad_(True)

    def until_weights_change(self, make: Callable[["DecomposedModel"], T]) -> T:
        """Return `make(self)`, made again only after a weight has changed."""
        with exclusive(self):
            key = tuple((p.data_ptr(), p._version, p.dtype, p.device) for p in self.parameters())
            kept = self.__dict__.setdefault("_kept", {})
            if make not in kept or kept[make][0] != key:
                kept[make] = (key, make(self))
            return kept[make][1]

    def folded(self, gate_rule: GateRule = "half") -> FoldedNetwork:
        """Return the network with its norms folded in, with what the gate rule needs of gated MLPs."""
        return self.until_weights_change(fold_network if gate_rule == "frozen" else fold_with_gates)

    def about(self) -> dict[str, str]:
        """Return which model this is, for what is made with it."""
        return {
            "version": decomp.__version__,
            "model": model_label(self.name_or_path or self.config.model_type),
            "revision": getattr(self.config, "_commit_hash", None) or "",
            "weights": self.until_weights_change(weights_digest),
            **({"weights_note": self.weights_note} if self.weights_note else {}),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def unembedding(self) -> Unembedding:
        """Return the language-model head, with the soft-cap of its logits where the config has one."""
        head = self.get_output_embeddings()
        assert isinstance(head, nn.Linear)
        softcap = getattr(self.config, "final_logit_softcapping", None)
        return Unembedding(head.weight.detach(), None if head.bias is None else head.bias.detach(), softcap)

    @torch.no_grad()
    def record(
        self,
        input_ids: Int[Tensor, " T"],
        position_ids: Int[Tensor, " T"] | None = None,
        rules: Rules = STANDARD,
        output_layers: bool = False,
        embedding: Float[Tensor, "T D"] | None = None,
    ) -> OperatingPoint:
        """Return everything that is frozen at one ordinary forward pass of one text.

        With an `embedding`, the pass starts from it instead of that of the tokens, and what gradients
        need is kept too. ValueError if the hidden states are not finite, and for positions that the
        architecture does not take.
        """
        if position_ids is not None:
            self.require("position_ids")
        check_ids(input_ids, self.max_length() if position_ids is None else None, self.config.vocab_size)
        blocks, sites, network, final_norm = self.blocks(), self.sites(), self.network(), self.final_norm()
        # With a mask, positions that skip some are no sign of several texts in a row.
        everything = torch.ones_like(input_ids[None])
        options = {} if position_ids is None else {"position_ids": position_ids[None], "attention_mask": everything}
        tape = Tape(self, rules, embedding is not None)
        with recording(tape, blocks, sites, network, final_norm, output_layers, embedding):
            hidden = self.base_model(input_ids=input_ids[None], use_cache=False, **options).last_hidden_state[0]
            check_finite(hidden)
            return operating_point(tape, sites, network, final_norm, hidden, output_layers)

    @torch.no_grad()
    def hidden_without(
        self, input_ids: Int[Tensor, "B T"], removed: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T E"]:
        """Return final hidden states where no later position attends to what is removed; positions stay.

        A removed position attends to itself where nothing else is left, so that every row of attention weights has
        an entry. What all texts begin with is computed once.
        """
        count, length = input_ids.shape
        position_ids = torch.arange(length, device=input_ids.device).expand(count, length)
        visible = position_ids[:, :, None] >= position_ids[:, None, :]
        if removed is not None:
            visible = visible & ~removed[:, None, :]
        # Where a window leaves a position nothing to look at, it looks at itself: a softmax needs something.
        itself = torch.eye(length, dtype=torch.bool, device=self.device)
        masks = {
            kind: additive_mask(seen | (itself & ~seen.any(-1, keepdim=True)), self.dtype)
            for kind, seen in self.seen_by_layers(visible).items()
        }

        def forward(texts: slice, part: slice, cache: DynamicCache | None = None) -> Float[Tensor, "texts part E"]:
            cut = {kind: mask[texts, None, part, : part.stop] for kind, mask in masks.items()}
            return self.base_model(
                input_ids=input_ids[texts, part],
                attention_mask=cut if len(cut) > 1 else next(iter(cut.values())),
                position_ids=position_ids[texts, part],
                past_key_values=cache,
                use_cache=cache is not None,
            ).last_hidden_state

        shared = shared_length(input_ids, removed) if count > 1 else 0
        with running(self, "eager"):
            if shared == 0:
                return forward(slice(None), slice(0, length))
            # Without the config, so that layers with a window keep all keys, as the masks have columns for all.
            cache = DynamicCache()
            prefix = forward(slice(1), slice(0, shared), cache)
            cache.batch_repeat_interleave(count)
            return torch.cat([prefix.expand(count, -1, -1), forward(slice(None), slice(shared, length), cache)], 1)

    def seen_by_layers(self, visible: Bool[Tensor, "B T T"]) -> dict[str, Bool[Tensor, "B T T"]]:
        """Return what layers of each kind see of what is visible: those with a sliding window the most recent."""
        window = getattr(self.config, "sliding_window", None)
        near = visible if window is None else within_window(visible, window)
        # Models whose config lists the layers' kinds take a mask for each, others one for all.
        return {"full_attention": visible, SLIDING: near} if hasattr(self.config, "layer_types") else {SLIDING: near}

    @torch.no_grad()
    def after_attention(
        self, layer: int, inputs: Float[Tensor, "*rows D"], output: Float[Tensor, "*rows D"]
    ) -> Float[Tensor, "*rows D"]:
        """Return a block's output in earnest, from its inputs and any output of its attention's own projection."""
        first, *rest = self.sites()[layer]
        attention, *beside = first.branches
        with own_precision(self.dtype):
            hidden = inputs + attention.finish(output)
            for branch in beside:
                hidden = hidden + branch.run(inputs)
            hidden = first.finish(hidden)
            for stage in rest:
                hidden = stage.finish(sum((branch.run(hidden) for branch in stage.branches), start=hidden))
        return hidden

    @torch.no_grad()
    def read_out(self, hidden: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows E"]:
        """Return what the unembedding reads of the last block's output: after the final norm and projection."""
        with own_precision(self.dtype):
            for module in (self.final_norm(), self.project_out()):
                hidden = hidden if module is None else module(hidden)
        return hidden

    def patched_logits(self, input_ids: Int[Tensor, "B T"], patch: Patch) -> Float[Tensor, "B V"]:
        """Return logits at the last position of texts of one length, where `patch` has a say at every stage."""
        check_ids(input_ids, self.max_length(), self.config.vocab_size)
        with patching(self, self.blocks(), self.sites(), patch):
            logits: Tensor = self(input_ids=input_ids, use_cache=False, logits_to_keep=1).logits
        return logits[:, -1]

    def write(
        self,
        input_ids: Int[Tensor, " T"],
        max_new_tokens: int,
        *,
        sample: bool = False,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Int[Tensor, " new"]:
        """Return a continuation, up to the end of sequence: the likeliest token each time, or sampled.

        ValueError if text and continuation have more tokens than the model has positions, or for a temperature
        that is too low to sample at.
        """
        check_temperature(temperature)
        check_ids(input_ids, None, self.config.vocab_size)
        if len(input_ids) + max_new_tokens > self.max_length():
            raise ValueError(
                f"{len(input_ids)} tokens and {max_new_tokens} new ones are more than the model's "
                f"{self.max_length()} positions: shorten the text or ask for fewer"
            )
        end = self.config.eos_token_id
        chosen = {"temperature": temperature, "top_k": 0} if sample else {}
        options = GenerationConfig(
            max_new_tokens=max_new_tokens, do_sample=sample, eos_token_id=end, pad_token_id=end, **chosen
        )
        with torch.random.fork_rng(), running(self, "eager"):
            torch.manual_seed(seed)
            written: Tensor = self.generate(
                input_ids[None], attention_mask=torch.ones_like(input_ids[None]), generation_config=options
            )
        return written[0, len(input_ids) :]

    def decompose(
        self,
        input_ids: Int[Tensor, "1 T"],
        *,
        attention_mask: Int[Tensor, "1 T"] | None = None,
        position_ids: Int[Tensor, "1 T"] | None = None,
        decomposition_length: int | None = None,
        activation_rule: ActivationRule = "tangent",
        gate_rule: GateRule = "half",
        output_layers: bool = False,
        memory: int | str = DEFAULT_MEMORY,
        sources: Labels | Partition | None = None,
    ) -> Decomposition:
        """Return the exact decomposition of one text's final hidden states (Oh & Schuler 2023).

        `decomposition_length`: most recent sources kept per target, all by default. `memory`: of the
        buffers, beside the result. `sources`: a label per token, of shape (T,); tokens of one label are one
        source, each token one by default. ValueError for ids or labels of another shape, non-finite hidden
        states, a length below 1.
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
            gate_rule=gate_rule,
            output_layers=output_layers,
            memory=memory,
            sources=None if sources is None else [sources],
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
        gate_rule: GateRule = "half",
        output_layers: bool = False,
        memory: int | str = DEFAULT_MEMORY,
        sources: Sequence[Labels | Partition] | None = None,
    ) -> list[Decomposition]:
        """Return one decomposition per text, padding taken off, that of the labels too; errors as for `decompose`."""
        rules = Rules(activation_rule, gate_rule)
        texts = unpad(input_ids, attention_mask, position_ids)
        partitions = unpad_sources(sources, attention_mask, [len(ids) for ids, _ in texts])
        points = [self.record(ids, places, rules, output_layers) for ids, places in texts]
        length = check_decomposition_length(decomposition_length, max(len(p) for p in points))
        biases = [list(p.carry(torch.zeros_like(p.embedding), with_bias=True)) for p in points]
        sums = [list(p.carry(p.embedding, with_bias=False)) for p in points]
        packed = assemble(self.folded(gate_rule), points, length, parse_bytes(memory), output_layers, partitions)
        about = {**self.about(), "activation_rule": activation_rule, "gate_rule": gate_rule}
        return [
            Decomposition.from_streams(ids.cpu(), length, point, bias, total, rows, self.unembedding(), about, own)
            for (ids, _), point, bias, total, rows, own in zip(
                texts, points, biases, sums, packed, partitions, strict=True
            )
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
        gate_rule: GateRule = "half",
        memory: int | str = DEFAULT_MEMORY,
        sources: Sequence[Labels | Partition] | None = None,
    ) -> Iterator[Chunk]:
        """Yield contributions in chunks of sources, in bounded memory; each chunk is valid until the next."""
        texts = unpad(input_ids, attention_mask, position_ids)
        partitions = unpad_sources(sources, attention_mask, [len(ids) for ids, _ in texts])
        points = [self.record(ids, places, Rules(activation_rule, gate_rule)) for ids, places in texts]
        length = check_decomposition_length(decomposition_length, max(len(p) for p in points))
        memory = parse_bytes(memory)
        yield from propagate(self.folded(gate_rule), points, length, memory, partitions=partitions)


def unpad(
    input_ids: Tensor | Sequence[Tensor], attention_mask: Tensor | None, position_ids: Tensor | None
) -> list[tuple[Int[Tensor, " T"], Int[Tensor, " T"] | None]]:
    """Return ids and positions of each text without its padding."""
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


def unpad_sources(
    sources: Sequence[Labels | Partition] | None, attention_mask: Tensor | None, lengths: Sequence[int]
) -> list[Partition]:
    """Return the partition of each text without its padding. ValueError where labels do not fit the texts."""
    if sources is None:
        return partitions_of(lengths, None)
    if len(sources) != len(lengths):
        raise ValueError(f"sources must be given for each text: {len(lengths)} texts, {len(sources)} of labels")
    if attention_mask is None:
        return partitions_of(lengths, [Partition.of(own) for own in sources])
    masks = attention_mask.bool().cpu()
    return partitions_of(lengths, [without_padding(own, mask) for own, mask in zip(sources, masks, strict=True)])


def without_padding(labels: Labels | Partition, mask: Bool[Tensor, " T"]) -> Partition:
    """Return the partition of the tokens that are no padding; labels may leave the padding out already."""
    if isinstance(labels, Partition) or len(labels) != len(mask):
        return Partition.of(labels)
    return Partition.of(torch.as_tensor(labels).cpu()[mask])


def within_window(visible: Bool[Tensor, "B T T"], window: int) -> Bool[Tensor, "B T T"]:
    """Return what is visible of each target and the positions just before it, `window` of them together."""
    return visible & torch.ones_like(visible[0]).triu(1 - window)


def additive_mask(seen: Bool[Tensor, "B T T"], dtype: torch.dtype) -> Float[Tensor, "B T T"]:
    """Return what is added to attention scores: 0 where something is seen, the least number elsewhere."""
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)


def shared_length(input_ids: Int[Tensor, "B T"], removed: Bool[Tensor, "B T"] | None) -> int:
    """Return how many tokens all texts begin with, none of them removed; the last token is every text's own."""
    differs = (input_ids != input_ids[:1]).any(0)
    if removed is not None:
        differs = differs | removed.any(0)
    differs[-1] = True
    return int(differs.long().argmax())


def check_decomposition_length(decomposition_length: int | None, longest: int) -> int:
    if decomposition_length is None:
        return longest
    if decomposition_length < 1:
        raise ValueError(f"the decomposition length must be at least 1 (the target itself), not {decomposition_length}")
    return decomposition_length


def check_ids(ids: Int[Tensor, "*B T"], positions: int | None, vocab: int) -> None:
    if positions is not None and ids.shape[-1] > positions:
        raise ValueError(f"a text has {ids.shape[-1]} tokens, the model has {positions} positions: cut it into windows")
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
