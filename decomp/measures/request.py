"""What every measure is asked with, and what it gives back. Imports no torch: commands read the defaults."""

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
    """How gradients are taken, and along which path to the baseline."""

    positions: bool = False
    """Whether gradients are with respect to token plus position embedding, not to the token embedding alone."""
    reduce: Literal["sum", "norm"] = "sum"
    """How gradients become one number a source: by their signed sum over hidden, or their norm."""
    norm: Literal["l1", "l2"] = "l2"
    steps: int = 20
    """Nodes of the path from baseline to input."""
    quadrature: str = "gauss-legendre"
    baseline: str | int = "auto"
    """`zero`, `mean` (of all embeddings), or a token by its id; see `with_token_ids` for its name. `auto` is `zero`
    where position embeddings are added to it, else `mean`: from zero alone a norm leaps, and no path converges."""
    strategy: Literal["greedy", "maxcount"] = "greedy"
    """How discretised integrated gradients choose among neighbours."""
    dig_steps: Literal["anchors", "points"] = "anchors"
    """What `steps` counts for discretised integrated gradients: the words between word and baseline, or all points of
    the path, both ends among them."""
    neighbors: int = 500
    """Nearest embeddings that discretised integrated gradients choose among."""


@dataclass(frozen=True)
class AttentionOptions:
    """Which layers and heads attention measures are of."""

    layers: Literal["last", "mean", "each"] = "last"
    heads: Literal["mean", "each"] = "mean"
    final_norm: bool = False
    """Value zeroing compares outputs of the last layer as they are read out, after the final norm and projection."""


@dataclass(frozen=True)
class OcclusionOptions:
    """What takes the place of a source."""

    replacement: str | int = "mask"
    """`mask` (as if it were not there, positions stay), `key` (its key alone is hidden: the newest source, whose
    position predicts, keeps its residual stream), or a token by its id."""


@dataclass(frozen=True)
class Request:
    """What a measure is computed with: the same for all measures of a table."""

    decomposition_length: int | None = None
    activation_rule: "ActivationRule" = "tangent"
    gate_rule: "GateRule" = "half"
    memory: int = 2**30
    extra: bool = False
    """Score `<bias>` and `<remainder>` too."""
    function: str | None = None
    """The attributed function by name (see `decomp.measures.functions`); None for the measure's own default."""
    usual: Mapping[str, str] = field(default_factory=dict)
    """The attributed function of measures where none is asked for and a convention has another than the measure."""
    span: int = 1
    """Units (tokens, or words where the texts have some) that are predicted together, by the chain rule."""
    strongest: int | None = None
    """Score so many sources, those with the largest first-order scores, and all others together; None for every one."""
    own: bool = False
    """Score `<own>`, what a predicted word or span owes to its own earlier tokens, whatever `extra` says."""
    gradients: GradientOptions = field(default_factory=GradientOptions)
    attention: AttentionOptions = field(default_factory=AttentionOptions)
    occlusion: OcclusionOptions = field(default_factory=OcclusionOptions)

    @property
    def rules(self) -> "Rules":
        """Return how activations and gates are made linear. ValueError for an unknown rule."""
        from decomp.core.rules import Rules  # imports torch

        return Rules(self.activation_rule, self.gate_rule)

    def resolved(self, model: "Model", tokenizer: Tokenizer) -> "Request":
        """Return the request with what is chosen by model or tokenizer as it is for these."""
        named = self.with_token_ids(tokenizer)
        if named.gradients.baseline != "auto":
            return named
        baseline = model.default_baseline(named.gradients.positions)
        return replace(named, gradients=replace(named.gradients, baseline=baseline))

    def with_token_ids(self, tokenizer: Tokenizer) -> "Request":
        """Return the request with baseline and replacement as ids, where they are named by a token.

        ValueError for a name that is no single token of the tokenizer.
        """
        gradients, occlusion = self.gradients, self.occlusion
        return replace(
            self,
            gradients=replace(gradients, baseline=token_id(gradients.baseline, tokenizer, ("auto", "zero", "mean"))),
            occlusion=replace(occlusion, replacement=token_id(occlusion.replacement, tokenizer, ("mask", "key"))),
        )


def token_id(name: str | int, tokenizer: Tokenizer, kept: Sequence[str]) -> str | int:
    """Return the id of `pad`, `unk`, `id:N`, or a text that is one token; names in `kept` stay.

    ValueError if there is none.
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
    """A text as measures take it: its tokens, and the targets whose next token is scored."""

    ids: "Int[Tensor, ' T']"
    targets: range
    foils: "Int[Tensor, 'T-1'] | None" = None
    """Per target the token that the next one is contrasted with, for contrastive functions."""
    words: "Int[Tensor, ' T'] | None" = None
    """Per token its word, rising from 0 without gaps: words are then the targets of the scores."""
    sources: "Partition | None" = None
    """Which source each token belongs to; where none is given, its word, or it is a source of its own."""
    has_bos: bool = False
    """Whether the first token is the beginning of sequence, which is shown and never among the strongest sources."""
    place: str = ""
    """Where the text is from, for who reads an error: `article 3, window 0`."""

    def on(self, device: "torch.device") -> "Text":
        """Return the text with its tokens on a device."""
        ids, foils, words = (None if each is None else each.to(device) for each in (self.ids, self.foils, self.words))
        assert ids is not None
        return replace(self, ids=ids, foils=foils, words=words)

    @cached_property
    def partition(self) -> "Partition":
        """Return which source each token belongs to."""
        from decomp.core.partition import Partition  # imports torch

        if self.sources is not None:
            return self.sources
        return Partition.tokens(len(self.ids)) if self.words is None else Partition(self.words.cpu())

    @property
    def has_groups(self) -> bool:
        """Return whether a source has several tokens; what is predicted last, a word, is none."""
        sizes = self.partition.labels.bincount()
        return bool((sizes > 1).any() if self.sources is not None else (sizes[:-1] > 1).any())

    @property
    def units(self) -> int:
        """Return the number of words, or of tokens where words do not count."""
        return len(self.ids) if self.words is None else int(self.words[-1]) + 1


class ScoreFunction(Protocol):
    """A function that computes a measure."""

    def __call__(self, model: "Model", texts: Sequence[Text], request: Request) -> "Iterator[list[Scores]]":
        """Yield the scores of each text, in order: usually one, several where a measure is in parts (heads).

        The request's function is None only for measures that take none.
        """
