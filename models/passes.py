"""The forward passes that measures need: recorded, with tokens hidden, with values changed, and for writing text."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from decomp.core.model import Patch
from decomp.core.operating_point import OperatingPoint
from decomp.core.rules import Rules
from decomp.models.architecture import Architecture
from decomp.models.checks import check_temperature
from decomp.models.patching import patching
from decomp.models.precision import own_precision
from decomp.models.recording import Tape, operating_point, recording
from decomp.models.running import running

STANDARD = Rules()
SLIDING = "sliding_attention"
"""The name, in configs, of layers whose attention has a sliding window."""


class Passes(Architecture):
    """A mixin with the forward passes that measures need: recorded, with tokens hidden, with values changed."""

    @torch.no_grad()
    def record(
        self,
        input_ids: Int[Tensor, " T"],
        position_ids: Int[Tensor, " T"] | None = None,
        rules: Rules = STANDARD,
        output_layers: bool = False,
        embedding: Float[Tensor, "T D"] | None = None,
        bias: bool = True,
    ) -> OperatingPoint:
        """Return the operating point of one text: all that is frozen at its forward pass.

        With an `embedding`, the pass starts from it in place of the tokens' own, and the values that gradients need
        are kept, too. Without `bias`, or with an `embedding`, the intercepts of activations are not kept: the bias
        alone needs them. ValueError for hidden states that are not finite, and for position numbers where the
        architecture does not take any.
        """
        if position_ids is not None:
            self.require("position_ids")
        check_ids(input_ids, self.max_length() if position_ids is None else None, self.config.vocab_size)
        blocks, sites, network, final_norm = self.blocks(), self.sites(), self.network(), self.final_norm()
        # With a mask, positions that skip some are no sign of several texts in a row.
        everything = torch.ones_like(input_ids[None])
        options = {} if position_ids is None else {"position_ids": position_ids[None], "attention_mask": everything}
        tape = Tape(self, rules, embedding is not None, bias)
        with recording(tape, blocks, sites, network, final_norm, output_layers, embedding):
            hidden = self.base_model(input_ids=input_ids[None], use_cache=False, **options).last_hidden_state[0]
            check_finite(hidden)
            return operating_point(tape, sites, network, final_norm, hidden, output_layers)

    @torch.no_grad()
    def hidden_without(
        self, input_ids: Int[Tensor, "B T"], removed: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T E"]:
        """Return final hidden states where no later position attends to the removed ones; position numbers stay.

        A removed position attends to itself where nothing else is left, so that no row of attention weights is empty.
        Tokens that all texts begin with are computed once.
        """
        count, length = input_ids.shape
        position_ids = torch.arange(length, device=input_ids.device).expand(count, length)
        masks = self.masks_without(position_ids, removed)

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

    def masks_without(
        self, position_ids: Int[Tensor, "B T"], removed: Bool[Tensor, "B T"] | None
    ) -> dict[str, Float[Tensor, "B T T"]]:
        """Return for each kind of layer the attention mask (0 or very negative) that hides the removed positions."""
        visible = position_ids[:, :, None] >= position_ids[:, None, :]
        if removed is not None:
            visible = visible & ~removed[:, None, :]
        # Where a window leaves a position nothing to look at, it looks at itself: a softmax needs something.
        itself = torch.eye(position_ids.shape[1], dtype=torch.bool, device=self.device)
        return {
            kind: additive_mask(seen | (itself & ~seen.any(-1, keepdim=True)), self.dtype)
            for kind, seen in self.seen_by_layers(visible).items()
        }

    def seen_by_layers(self, visible: Bool[Tensor, "B T T"]) -> dict[str, Bool[Tensor, "B T T"]]:
        """Return for each kind of layer the visible positions that it sees: with a sliding window, the most recent."""
        window = getattr(self.config, "sliding_window", None)
        near = visible if window is None else within_window(visible, window)
        # Models whose config lists the layers' kinds take a mask for each, others one for all.
        return {"full_attention": visible, SLIDING: near} if hasattr(self.config, "layer_types") else {SLIDING: near}

    @torch.no_grad()
    def after_attention(
        self, layer: int, inputs: Float[Tensor, "*rows D"], output: Float[Tensor, "*rows D"]
    ) -> Float[Tensor, "*rows D"]:
        """Return a block's output, computed by its real MLP and norms, from its input and a given attention output."""
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
        """Return the last block's output after the final norm and projection, which the unembedding reads."""
        with own_precision(self.dtype):
            for module in (self.final_norm(), self.project_out()):
                hidden = hidden if module is None else module(hidden)
        return hidden

    def patched_logits(self, input_ids: Int[Tensor, "B T"], patch: Patch) -> Float[Tensor, "B V"]:
        """Return the logits at the last position of texts of one length; `patch` may change values at every stage."""
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
        """Return a continuation of at most `max_new_tokens` tokens, up to the end-of-sequence token.

        Each token is the likeliest one, or with `sample` drawn at the `temperature`. ValueError if text and
        continuation have more tokens than the model has positions, and for a temperature that is too low to sample at.
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


def within_window(visible: Bool[Tensor, "B T T"], window: int) -> Bool[Tensor, "B T T"]:
    """Return the visible positions among each target and those just before it, `window` positions together."""
    return visible & torch.ones_like(visible[0]).triu(1 - window)


def additive_mask(seen: Bool[Tensor, "B T T"], dtype: torch.dtype) -> Float[Tensor, "B T T"]:
    """Return an attention mask: 0 for positions that are seen, the lowest number of the dtype for others."""
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)


def shared_length(input_ids: Int[Tensor, "B T"], removed: Bool[Tensor, "B T"] | None) -> int:
    """Return the number of tokens that all texts begin with, none of them removed, and less than all tokens."""
    differs = (input_ids != input_ids[:1]).any(0)
    if removed is not None:
        differs = differs | removed.any(0)
    differs[-1] = True
    return int(differs.long().argmax())


def check_ids(ids: Int[Tensor, "*B T"], positions: int | None, vocab: int) -> None:
    """Raise ValueError for more tokens than the model has positions, and for ids outside of its vocabulary."""
    if positions is not None and ids.shape[-1] > positions:
        raise ValueError(f"a text has {ids.shape[-1]} tokens, the model has {positions} positions: cut it into windows")
    if int(ids.max()) >= vocab or int(ids.min()) < 0:
        outside = ids[(ids >= vocab) | (ids < 0)][0]
        raise ValueError(f"token id {int(outside)} is not in the model's vocabulary of {vocab}: is it its tokenizer?")


def check_finite(hidden: Tensor) -> None:
    """Raise ValueError for hidden states that are NaN or infinite."""
    finite = hidden.isfinite().all(-1)
    if not finite.all():
        raise ValueError(
            f"the model's hidden state is not finite at position {int((~finite).nonzero()[0])}: "
            "check its weights, or use a dtype with more range (float32 instead of float16)"
        )
