"""The request and the text that every measure is computed from; importing it takes no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

from decomp.corpus.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from jaxtyping import Int
    from torch import Tensor

    from decomp.core.model import Model
    from decomp.core.partition import Partition
    from decomp.core.rules import ActivationRule, GateRule, Rules
    from decomp.measures.result import Scores


@dataclass(frozen=True)
class GradientOptions:
    """The options of gradient measures: with respect to what gradients are taken, and along which path."""

    positions: bool = False
    """Whether gradients are with respect to the sum of token and position embeddings, not to the former alone."""
    reduce: Literal["sum", "norm"] = "sum"
    """The reduction of a source's gradient over the embedding's width: its signed sum, or its norm."""
    norm: Literal["l1", "l2"] = "l2"
    """The norm by which a gradient becomes one number, for the reduction `norm`."""
    steps: int = 20
    """The number of points on the path from baseline to input."""
    quadrature: str = "gauss-legendre"
    """The rule of integration, a name in `decomp.measures.quadrature`."""
    baseline: str | int = "auto"
    """The baseline: `zero`, `mean` (of all token embeddings), the id or name of a token, or `auto`.

    `auto` is `zero` where position embeddings are added to it, else `mean`: at zero itself a norm is discontinuous, so
    that no path from there converges.
    """
    strategy: Literal["greedy", "maxcount"] = "greedy"
    """The strategy by which discretised integrated gradients choose the next word of a path."""
    dig_steps: Literal["anchors", "points"] = "anchors"
    """The meaning of `steps` for discretised integrated gradients.

    `anchors`: the words between a word and the baseline; `points`: all points of the path, both ends included.
    """
    neighbors: int = 500
    """The number of nearest embeddings among which discretised integrated gradients choose."""


@dataclass(frozen=True)
class AttentionOptions:
    """The options of attention measures: layers and heads, each by itself or together."""

    layers: Literal["last", "mean", "each"] = "last"
    """The layers to score: the last one, the mean over layers, or each by itself."""
    heads: Literal["mean", "each"] = "mean"
    """The heads to score: the mean over heads, or each by itself."""
    final_norm: bool = False
    """Whether value zeroing compares outputs of the last layer after the final norm and projection."""


@dataclass(frozen=True)
class OcclusionOptions:
    """The options of occlusion: what takes the place of a removed source."""

    replacement: str | int = "mask"
    """The replacement of a source: `mask`, `key`, or the id or name of a token.

    `mask`: as if the source were not there, with unchanged positions of the others. `key`: its keys are hidden, but the
    position that predicts keeps its residual stream.
    """


@dataclass(frozen=True)
class Request:
    """The options by which measures are computed, the same for all measures of a table."""

    decomposition_length: int | None = None
    """The number of most recent sources kept for each target, the target included; None for all."""
    activation_rule: "ActivationRule" = "tangent"
    """The rule by which activations of plain MLPs are made linear: `tangent` or `secant`."""
    gate_rule: "GateRule" = "half"
    """The rule for gated MLPs: `half` of the product goes to either factor, or gates are `frozen`."""
    memory: int = 2**30
    """The bytes of memory for all that is held beside the model."""
    extra: bool = False
    """Whether to score `<bias>` and `<remainder>`, too."""
    function: str | None = None
    """The name of the attributed function, such as `log2_prob`; None for each measure's own default."""
    usual: Mapping[str, str] = field(default_factory=dict)
    """The attributed functions, by measure, by which a convention replaces the measure's default."""
    span: int = 1
    """The number of units (words, or tokens of texts without words) predicted together, by the chain rule."""
    strongest: int | None = None
    """The number of sources to score one by one, those that the first-order screen ranks first; None for all.

    All other sources are then scored together.
    """
    own: bool = False
    """Whether to score `<own>`, the earlier tokens of a predicted word or span itself, whatever `extra` says."""
    gradients: GradientOptions = field(default_factory=GradientOptions)
    """The options of gradient measures."""
    attention: AttentionOptions = field(default_factory=AttentionOptions)
    """The options of attention measures."""
    occlusion: OcclusionOptions = field(default_factory=OcclusionOptions)
    """The options of occlusion."""

    @property
    def rules(self) -> "Rules":
        """Return the rules by which activations and gates are made linear. ValueError for an unknown rule."""
        from decomp.core.rules import Rules  # imports torch

        return Rules(self.activation_rule, self.gate_rule)

    def resolved(self, model: "Model", tokenizer: Tokenizer) -> "Request":
        """Return the request with values that depend on the model or tokenizer (`auto`, names of tokens) filled in."""
        named = self.with_token_ids(tokenizer)
        if named.gradients.baseline != "auto":
            return named
        baseline = model.default_baseline(named.gradients.positions)
        return replace(named, gradients=replace(named.gradients, baseline=baseline))

    def with_token_ids(self, tokenizer: Tokenizer) -> "Request":
        """Return the request with baseline and replacement as token ids where they name a token.

        ValueError for a name that is not a single token of the tokenizer.
        """
        gradients, occlusion = self.gradients, self.occlusion
        return replace(
            self,
            gradients=replace(gradients, baseline=token_id(gradients.baseline, tokenizer, ("auto", "zero", "mean"))),
            occlusion=replace(occlusion, replacement=token_id(occlusion.replacement, tokenizer, ("mask", "key"))),
        )


def token_id(name: str | int, tokenizer: Tokenizer, kept: Sequence[str]) -> str | int:
    """Return the token id that a name stands for: `pad`, `unk`, `id:N`, or a text that is one token.

    Names in `kept` are returned as they are. ValueError for a name that stands for no token.
    """
    if isinstance(name, int) or name in kept:
        return name
    if name.startswith("id:") and name[3:].isdecimal():
        if int(name[3:]) >= len(tokenizer):
            raise ValueError(f"there is no token {name[3:]}: the tokenizer has {len(tokenizer)}, from id:0")
        return int(name[3:])
    if name in ("pad", "unk"):
        special = getattr(tokenizer, f"{name}_token_id")
        if special is None:
            raise ValueError(f"the tokenizer has no {name} token: choose {', '.join(kept)}, or a token such as ' the'")
        return int(special)
    ids = tokenizer(name, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"{name!r} is {len(ids)} tokens, not one: choose {', '.join(kept)}, pad, unk, or one token")
    return int(ids[0])


@dataclass(frozen=True)
class Text:
    """A text to be scored: its token ids, its targets (whose next tokens are predicted), and its sources."""

    ids: "Int[Tensor, ' T']"
    """The token ids of the text."""
    targets: range
    """The positions whose next token's prediction is scored."""
    foils: "Int[Tensor, 'T-1'] | None" = None
    """For each target, the token id that contrastive functions compare the next token with; None without foils."""
    words: "Int[Tensor, ' T'] | None" = None
    """The word of each token, numbered from 0 without gaps; scores are then of predicted words. None for tokens."""
    sources: "Partition | None" = None
    """The source that each token belongs to; None for its word, or where there are no words the token itself."""
    has_bos: bool = False
    """Whether the first token is the beginning-of-sequence token, which never counts as a strongest source."""
    place: str = ""
    """The place of the text in its corpus, for messages of errors: `article 3, window 0`."""

    def on(self, device: "torch.device") -> "Text":
        """Return the text with its tokens on a device."""
        ids, foils, words = (None if each is None else each.to(device) for each in (self.ids, self.foils, self.words))
        assert ids is not None
        return replace(self, ids=ids, foils=foils, words=words)

    @cached_property
    def partition(self) -> "Partition":
        """Return the source of each token, the default filled in."""
        from decomp.core.partition import Partition  # imports torch

        if self.sources is not None:
            return self.sources
        return Partition.tokens(len(self.ids)) if self.words is None else Partition(self.words.cpu())

    @property
    def has_groups(self) -> bool:
        """Return whether any source has several tokens; the last word, which is only predicted, does not count."""
        sizes = self.partition.labels.bincount()
        return bool((sizes > 1).any() if self.sources is not None else (sizes[:-1] > 1).any())

    @property
    def units(self) -> int:
        """Return the number of words, or of tokens for a text without words."""
        return len(self.ids) if self.words is None else int(self.words[-1]) + 1


class ScoreFunction(Protocol):
    """A function that computes a measure: from a model, texts and a request, the scores of each text."""

    def __call__(self, model: "Model", texts: Sequence[Text], request: Request) -> "Iterator[list[Scores]]":
        """Yield the scores of each text, in order: a list of one, or of several for a measure in parts, as by heads.

        The request's `function` is None only for measures that take no attributed function.
        """
