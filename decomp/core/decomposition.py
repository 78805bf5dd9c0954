"""The decomposition of one text: the contributions of its sources, the bias, the hidden states, and their ΔLP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core import storage
from decomp.core.ablation import Unembedding, ablated_log2_prob, next_log2_prob
from decomp.core.engine import propagate
from decomp.core.folding import FoldedNetwork
from decomp.core.operating_point import OperatingPoint
from decomp.core.pairs import Pairs, Panel
from decomp.core.partition import Partition
from decomp.io.views import view

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS_READ = 16384
"""The number of contributions that are read from a file at a time."""


class Rows(Protocol):
    """The contributions of all pairs, in memory or in a file: `rows[a:b]` gives those rows as a tensor."""

    def __getitem__(self, index: slice, /) -> Float[Tensor, "pairs E"]: ...


@dataclass(frozen=True, eq=False)
class Decomposition:
    """The exact decomposition of one text's final hidden states into vectors, one for each source (Oh & Schuler 2023).

    For every target i, `hidden[i] = Σ_k contributions(i)[k] + bias[i] + remainder()[i]`. Targets are positions in
    `input_ids`; sources are positions too, or numbers of the groups of tokens in `partition`.

        >>> import decomp
        >>> result = decomp.decompose("The cat sat.", "demo-opt")
        >>> result.sources(3), result.contributions(3).shape  # the sources of " sat", which predicts "."
        (range(0, 4), torch.Size([4, 192]))
        >>> result.completeness_gap() < 1e-4
        True
    """

    input_ids: Int[Tensor, " T"]
    """The token ids of the text."""
    decomposition_length: int
    """The number W of the most recent sources that are kept for each target."""
    rows: Rows
    """The contributions of all (target, source) pairs, target by target; no row for a source after its target."""
    bias: Float[Tensor, "T E"]
    """The part of each hidden state that belongs to no source: all biases, carried through the network."""
    hidden: Float[Tensor, "T E"]
    """The final hidden states of the model, which the unembedding reads."""
    older: Float[Tensor, "T E"]
    """The sum over the sources that are older than the decomposition length, as `remainder()` returns it."""
    hidden_layers: tuple["Decomposition", ...] = ()
    """The decompositions of the states after the embedding and after each block, if every layer was asked for."""
    unembedding: Unembedding | None = None
    """The language-model head, by which log probabilities are computed; None if a file of it is missing."""
    tokens: tuple[str, ...] | None = None
    """The strings of the tokens; None where they are not known."""
    about: Mapping[str, str] = field(default_factory=dict)
    """The model, rules and versions that the decomposition was made with."""
    partition: Partition = None  # type: ignore[assignment]  # set below where it is not given
    """The source that each token belongs to; by default every token is a source of its own."""

    def __post_init__(self) -> None:
        if self.partition is None:
            object.__setattr__(self, "partition", Partition.tokens(len(self.input_ids)))

    @cached_property
    def kept(self) -> Pairs:
        """Return the (target, source) pairs that have a contribution, in the order of `rows`."""
        return Pairs(self.partition, self.decomposition_length)

    def __len__(self) -> int:
        return len(self.input_ids)

    def sources(self, target: int) -> range:
        """Return the sources kept for one target, oldest first. ValueError for a target outside of the text."""
        if not 0 <= target < len(self):
            raise ValueError(f"target {target} is not in the text: its targets are 0 to {len(self) - 1}")
        return self.kept.sources(target)

    def contributions(self, target: int) -> Float[Tensor, "sources E"]:
        """Return the contributions to one target, one vector for each source in `sources(target)` (a view)."""
        self.sources(target)  # refuses a target outside of the text
        begin, end = self.kept.offsets[target : target + 2]
        return self.rows[begin:end].to(self.hidden.dtype)

    def pairs(self) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Return the target and the source of each row of `rows`, as two vectors of integers."""
        return self.kept.indices()

    def dense(self) -> Float[Tensor, "T S E"]:
        """Return all contributions by target and source; zero where a source is later than its target, or not kept."""
        dense = self.hidden.new_zeros(len(self), self.partition.count, self.hidden.shape[-1])
        for target in range(len(self)):
            sources = self.sources(target)
            dense[target, sources.start : sources.stop] = self.contributions(target)
        return dense

    def remainder(self) -> Float[Tensor, "T E"]:
        """Return the sum over the sources older than the decomposition length; zero for targets without any."""
        return self.older

    def total(self) -> Float[Tensor, "T E"]:
        """Return the sum of contributions, bias and remainder, which is `hidden` up to rounding."""
        kept = torch.stack([self.contributions(target).sum(0) for target in range(len(self))])
        return kept + self.bias + self.older

    def completeness_gap(self) -> float:
        """Return the largest absolute difference between `hidden` and `total()`, the error of the decomposition."""
        return (self.hidden - self.total()).abs().max().item()

    def next_log2_prob(self) -> Float[Tensor, "T-1"]:
        """Return the log2 probability of each target's next token, in bits. ValueError without an unembedding."""
        return next_log2_prob(self.hidden[:-1], self.next_ids(), self.need_unembedding())

    def delta_lp(self, first_target: int = 0) -> Float[Tensor, "T-1 S"]:
        """Return ΔLP of each (target, source) pair, in bits (Oh & Schuler 2023).

        ΔLP is the log2 probability of the target's next token minus the same with the source's contribution taken away
        from the hidden state. It is zero where a source is not kept, and for targets before `first_target`.
        ValueError without an unembedding (a stored decomposition whose unembedding file is missing).
        """
        unembedding, next_ids = self.need_unembedding(), self.next_ids()
        if len(next_ids) == 0:
            return self.hidden.new_zeros(0, self.partition.count)
        plain = self.next_log2_prob()
        scores = plain.new_zeros(len(next_ids), self.partition.count)
        targets, sources = (index.to(self.hidden.device) for index in self.pairs())
        begin, end = (self.kept.offsets[target] for target in (first_target, len(next_ids)))
        for first in range(begin, end, ROWS_READ):
            rows = slice(first, min(first + ROWS_READ, end))
            vectors = self.rows[rows].to(self.hidden)
            ablated = ablated_log2_prob(vectors, targets[rows], self.hidden, next_ids, unembedding)
            scores[targets[rows], sources[rows]] = plain[targets[rows]] - ablated
        return scores

    def next_ids(self) -> Int[Tensor, "T-1"]:
        """Return the id of the token that follows each target; the last token has none after it."""
        return self.input_ids[1:].to(self.hidden.device)

    def need_unembedding(self) -> Unembedding:
        """Return the language-model head. ValueError where the decomposition has none."""
        if self.unembedding is None:
            raise ValueError("this decomposition has no unembedding, which log probabilities need: see decomp.load")
        return self.unembedding

    def _repr_html_(self) -> str | None:
        """Return the HTML page of ΔLP that a notebook shows; None for a long text, or one of unknown tokens."""
        shown: str | None = view("frame", self)
        return shown

    def show(self, target: int | str | None = None, top: int = 10) -> None:
        """Show ΔLP: in a notebook as a page, in a terminal as coloured text with a list of the `top` sources.

        `target` limits it to one predicted token, by its position or "last". ValueError where tokens or the unembedding
        are not known, and for a target that the text does not have.
        """
        view("show", self, None, target, top)

    def plot(self, kind: str = "heat", **options: Any) -> "Figure":
        """Return a matplotlib figure of ΔLP; `kind` is heat, arcs, bars or distance, see `Table.plot`."""
        figure: Figure = view("plot", self, kind, **options)
        return figure

    def save(self, path: str | Path, *, dtype: torch.dtype | None = None, overwrite: bool = False) -> None:
        """Write the decomposition to a file, and its unembedding beside it, for `decomp.load` to read.

        `dtype` is the precision of the stored contributions, their own by default. `hidden_layers` are not stored.
        ValueError for an existing file without `overwrite`, for a folder that can't be written into, and for
        contributions that `dtype` can't hold.
        """
        storage.save(self, Path(path), dtype=dtype, overwrite=overwrite)

    @classmethod
    def from_streams(
        cls,
        input_ids: Int[Tensor, " T"],
        decomposition_length: int,
        point: OperatingPoint,
        bias: Sequence[Float[Tensor, "T _"]],
        total: Sequence[Float[Tensor, "T _"]],
        rows: Sequence[Float[Tensor, "pairs _"]],
        unembedding: Unembedding,
        about: Mapping[str, str],
        partition: Partition,
    ) -> "Decomposition":
        """Return the decomposition made of what was carried through the network.

        `bias`, `total` (the sum over all sources) and `rows` have an entry for the final states last, before it one for
        each layer where `point` has `hidden_layers`.
        """
        pairs = Pairs(partition, min(decomposition_length, partition.count))
        targets, _ = pairs.indices()

        def at(layer: int, hidden: Tensor, **more: Any) -> Decomposition:
            kept = torch.zeros_like(hidden).index_add_(0, targets.to(hidden.device), rows[layer])
            older = remainder_of(total[layer], kept, pairs.covered)
            given = input_ids, pairs.decomposition_length, rows[layer], bias[layer], hidden, older
            return cls(*given, about=about, partition=partition, **more)

        layers = tuple(at(layer, hidden) for layer, hidden in enumerate(point.hidden_layers))
        return at(-1, point.hidden, hidden_layers=layers, unembedding=unembedding)


def remainder_of(total: Float[Tensor, "T E"], kept: Float[Tensor, "T E"], covered: int) -> Float[Tensor, "T E"]:
    """Return the sum over all sources minus that over the kept ones; exactly zero for the first `covered` targets.

    Those are the targets that keep all sources.
    """
    older = total - kept
    older[:covered] = 0
    return older


def assemble(
    folded: FoldedNetwork,
    points: Sequence[OperatingPoint],
    decomposition_length: int,
    memory: int,
    every_layer: bool,
    partitions: Sequence[Partition],
) -> list[list[Float[Tensor, "pairs _"]]]:
    """Return for each text the contributions of its pairs: to every layer's states if asked for, then to the last."""
    packed: list[list[Tensor]] = []
    pairs = [Pairs(partition, decomposition_length) for partition in partitions]
    for point, own in zip(points, pairs, strict=True):
        layers = len(folded.network.blocks) + 1 if every_layer else 0
        inner = [point.embedding.new_empty(len(own), point.embedding.shape[-1]) for _ in range(layers)]
        packed.append([*inner, point.hidden.new_empty(len(own), point.hidden.shape[-1])])

    def keep(layer: int, panel: Panel, rows: Tensor) -> None:
        own = pairs[panel.text]
        for segment in panel.segments:
            part = rows[segment.row - panel.rows.start :][: len(segment.targets) * len(segment.sources)]
            for t, target in enumerate(segment.targets):
                start = own.offsets[target] + segment.sources.start - own.sources(target).start
                count = len(segment.sources)
                packed[panel.text][layer][start : start + count] = part[t * count : (t + 1) * count]

    def observe(layer: int, panels: Sequence[Panel], rows: Tensor) -> None:
        for panel in panels:
            keep(layer, panel, rows[panel.rows])

    seen = observe if every_layer else None
    for chunk in propagate(folded, points, decomposition_length, memory, seen, partitions):
        keep(-1, chunk.panel, chunk.rows)
    return packed


def load(path: str | Path, unembedding: str | Path | None = None) -> Decomposition:
    """Return a decomposition that was saved to a file; contributions are read, and checked, as they are needed.

    `unembedding` is the file of the language-model head, by default the one beside it that belongs to the same model.
    The original research code's files are read, too: give `d_{id}.pt`, which needs `i_{id}.pt` and `o_{id}.pt` beside
    it; the `bias` is then all that the contributions leave of the hidden states. ValueError for a file that is missing,
    truncated, damaged, foreign, or newer than this package.

        >>> import decomp
        >>> decomp.decompose("The cat sat.", "demo-opt").save("cat.safetensors")
        >>> stored = decomp.load("cat.safetensors")
        >>> stored.tokens, stored.completeness_gap() < 1e-4
        (('</s>', 'The', 'Ġcat', 'Ġsat', '.'), True)
    """
    return Decomposition(**storage.read(Path(path), None if unembedding is None else Path(unembedding)))
