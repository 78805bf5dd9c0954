"""Gradients of many targets at once, taken back from their hidden states to the embeddings in bounded memory.

What `torch.autograd` would give for each target on its prefix. Rows are (target, position ≤ target): no state
after a target is looked at, and all targets of a group meet each weight in one matrix product. Activations and
norms come from one forward pass of the whole text, which all targets share. `g` is a gradient throughout.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.rules import (
    Affine,
    AttentionMaps,
    AttentionRows,
    FrozenSublayer,
    MLPMaps,
    Network,
    Norm,
    OperatingPoint,
    Sublayer,
)
from decomp.core.workspace import bytes_of
from decomp.io.amounts import format_bytes

GROUP_ROWS = 1024
"""Rows, (target, position) pairs, of a group, where one target does not have more."""


@dataclass(frozen=True)
class FrozenNorm:
    """A norm with 1/σ and the standardised state of every position."""

    norm: Norm
    inverse_std: Float[Tensor, " T"]
    standardised: Float[Tensor, "T D"]

    def output(self) -> Float[Tensor, "T D"]:
        return self.norm.scale(self.standardised, affine=True)

    def pull(self, g: Float[Tensor, "rows D"], at: "Places") -> Float[Tensor, "rows D"]:
        """Of x ↦ γ ⊙ x̂ + β, x̂ = (x − mean(x)) / σ: (ĝ − mean(ĝ) − x̂ · mean(ĝ ⊙ x̂)) / σ with ĝ = γ ⊙ g."""
        g = self.norm.scale(g, affine=False)
        return self.pull_folded(g - g.mean(-1, keepdim=True) if self.norm.centred else g, at)

    def pull_folded(self, g: Float[Tensor, "rows D"], at: "Places") -> Float[Tensor, "rows D"]:
        """The same from ĝ − mean(ĝ), which weights with the norm folded in give."""
        x = at(self.standardised)
        g = torch.addcmul(g, x, (g * x).mean(-1, keepdim=True), value=-1)
        return g.mul_(at(self.inverse_std)[..., None])


@dataclass(frozen=True)
class Places:
    """Which (target, position) each row of a group stands for, target by target: all positions up to the
    target, or its own alone."""

    targets: range
    own: bool
    device: torch.device

    @cached_property
    def counts(self) -> Int[Tensor, " N"]:
        """Rows of each target."""
        positions = torch.arange(self.targets.start, self.targets.stop, device=self.device) + 1
        return torch.ones_like(positions) if self.own else positions

    @cached_property
    def index(self) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]]:
        """Of each row among targets, and among the positions that a target of the group may have."""
        target = torch.repeat_interleave(self.counts)
        first = self.counts.cumsum(0) - self.counts
        return target, torch.arange(len(target), device=self.device) - first[target]

    @property
    def last(self) -> Int[Tensor, " N"]:
        """The row of each target's own position."""
        return self.counts.cumsum(0) - 1

    def __call__(self, values: Float[Tensor, "T *rest"]) -> Float[Tensor, "rows *rest"]:
        """`values` by position, for each row."""
        target, position = self.index
        return values.index_select(0, target + self.targets.start if self.own else position)

    def scale_(self, rows: Float[Tensor, "rows F"], factors: Float[Tensor, "T F"]) -> Float[Tensor, "rows F"]:
        """Rows times the factors of their positions, in place: those of wide rows are not copied for each target."""
        if self.own:
            return rows.mul_(self(factors))
        for part in rows.split([target + 1 for target in self.targets]):
            part.mul_(factors[: len(part)])
        return rows

    def pad(self, rows: Float[Tensor, "rows *rest"]) -> Float[Tensor, "N P *rest"]:
        """Rows as a rectangle, zero where a target has none."""
        padded = rows.new_zeros(len(self.targets), 1 if self.own else self.targets.stop, *rows.shape[1:])
        padded[self.index] = rows
        return padded

    def pad_heads(self, rows: Float[Tensor, "rows HV"], heads: int) -> Float[Tensor, "H N P V"]:
        """The same, head by head."""
        parts = rows.unflatten(-1, (heads, -1))
        padded = rows.new_zeros(heads, len(self.targets), 1 if self.own else self.targets.stop, parts.shape[-1])
        padded.permute(1, 2, 0, 3)[self.index] = parts
        return padded


@dataclass(frozen=True)
class KeptRows:
    """Attention weights, held for all groups of targets."""

    weights: Float[Tensor, "H T T"]

    def __call__(self, first: int, last: int) -> Float[Tensor, "H targets T"]:
        return self.weights[:, first:last]

    @property
    def nbytes(self) -> int:
        return bytes_of(self.weights)


@dataclass(frozen=True)
class PulledMLP:
    up: Float[Tensor, "D F"]
    """With the norm before it folded in."""
    down: Float[Tensor, "F D"]
    slope: Float[Tensor, "T F"]

    def pull(self, g: Float[Tensor, "rows D"], at: Places, below: Places) -> Float[Tensor, "rows D"]:
        """Of x ↦ φ(x W_1) W_2: ((g W_2ᵀ) ⊙ φ') W_1ᵀ."""
        return at.scale_(g @ self.down.T, self.slope) @ self.up.T


@dataclass(frozen=True)
class PulledAttention:
    inputs: Float[Tensor, "D 3·HV"]
    """Query, key and value projections side by side, with the norm before them folded in."""
    output: Float[Tensor, "HV D"]
    heads: int
    scaling: float
    query: Float[Tensor, "H T V"]
    key: Float[Tensor, "H T V"]
    value: Float[Tensor, "H T V"]
    weights: AttentionRows

    def pull(self, g: Float[Tensor, "rows D"], at: Places, below: Places) -> Float[Tensor, "rows_below D"]:
        """Of A = softmax(s · Q Kᵀ), Z = A V: with dA = dZ Vᵀ and dS = A ⊙ (dA − rowsum(A ⊙ dA)),

        dQ = s · dS K, dK = s · dSᵀ Q, dV = Aᵀ dZ.
        """
        stop = at.targets.stop
        positions = slice(at.targets.start if at.own else 0, stop)
        weights, query = self.weights(positions.start, stop)[..., :stop], self.query[:, positions]
        # (H, N, 1, T) or (H, 1, T, T): a target has its own row of weights, or shares all rows with the others.
        weights, query = (x.unsqueeze(2 if at.own else 1) for x in (weights, query))
        key, value = self.key[:, :stop], self.value[:, :stop]
        dz = at.pad_heads(g @ self.output.T, self.heads)
        ds = (dz.flatten(1, 2) @ value.mT).view(*dz.shape[:3], stop)
        ds.sub_((ds * weights).sum(-1, keepdim=True)).mul_(weights).mul_(self.scaling)
        dq = (ds.flatten(1, 2) @ key).view(dz.shape)
        pulled = [dq, ds.mT @ query, weights.mT @ dz]
        joint = g.new_zeros(len(below.index[0]), 3, *dz.shape[::3])
        for part, (states, places) in enumerate(zip(pulled, (at, below, below), strict=True)):
            rows = below.last if at.own and places is at else slice(None)
            joint[rows, part] = states.permute(1, 2, 0, 3)[places.index]
        return joint.flatten(1) @ self.inputs.T


@dataclass(frozen=True)
class PulledSublayer:
    body: PulledAttention | PulledMLP
    norm_before: FrozenNorm | None
    norm_after: FrozenNorm | None

    def pull(self, g: Float[Tensor, "rows D"], at: Places) -> tuple[Float[Tensor, "rows_below D"], Places]:
        """Of x ↦ norm_after(x + body(norm_before(x))); below attention the rows are those of all positions."""
        below = at if isinstance(self.body, PulledMLP) or not at.own else Places(at.targets, False, at.device)
        if self.norm_after is not None:
            g = self.norm_after.pull(g, at)
        inner = self.body.pull(g, at, below)
        if self.norm_before is not None:
            inner = self.norm_before.pull_folded(inner, below)
        inner[slice(None) if below is at else below.last] += g
        return inner, below


FoldedInputs = tuple[tuple[Float[Tensor, "D outputs"], ...], ...]
"""By block and sublayer: `up`, or query, key and value side by side, with the norm before them folded in."""


@torch.no_grad()
def fold_inputs(network: Network) -> FoldedInputs:
    def folded(sublayer: Sublayer) -> Tensor:
        maps = sublayer.maps
        parts = [maps.up] if isinstance(maps, MLPMaps) else [maps.query, maps.key, maps.value]
        joint = torch.cat([part.weight for part in parts], 1)
        return joint if sublayer.norm_before is None else sublayer.norm_before.fold_into(joint)

    return tuple(tuple(folded(sublayer) for sublayer in block) for block in network.blocks)


def frozen_norm(norm: Norm | None, inverse_std: Tensor | None, standardised: Tensor | None) -> FrozenNorm | None:
    if norm is None:
        return None
    assert inverse_std is not None
    assert standardised is not None
    return FrozenNorm(norm, inverse_std, standardised)


def split_heads(x: Float[Tensor, "T D"], projection: Affine, heads: int) -> Float[Tensor, "H T V"]:
    return projection(x, affine=True).view(len(x), heads, -1).transpose(0, 1).contiguous()


def freeze(
    sublayer: Sublayer,
    frozen: FrozenSublayer,
    inputs: Float[Tensor, "D outputs"],
    x: Float[Tensor, "T D"],
    keep: bool,
) -> PulledSublayer:
    """One sublayer at its operating point; `x` is the state before it, needed where no norm comes first."""
    maps = sublayer.maps
    before = frozen_norm(sublayer.norm_before, frozen.inverse_std_before, frozen.standardised_before)
    after = frozen_norm(sublayer.norm_after, frozen.inverse_std_after, frozen.standardised_after)
    if isinstance(maps, MLPMaps):
        assert frozen.slope is not None
        return PulledSublayer(PulledMLP(inputs, maps.down.weight, frozen.slope), before, after)
    assert frozen.attention is not None
    weights = KeptRows(frozen.attention(0, len(x))) if keep else frozen.attention
    x = x if before is None else before.output()
    query, key, value = (split_heads(x, projection, maps.heads) for projection in (maps.query, maps.key, maps.value))
    body = PulledAttention(inputs, maps.output.weight, maps.heads, maps.scaling, query, key, value, weights)
    return PulledSublayer(body, before, after)


class Pullback:
    """Gradients through one text's forward pass, which was recorded from an embedding."""

    def __init__(self, network: Network, folded: FoldedInputs, point: OperatingPoint, memory: int) -> None:
        """Attention weights are held where a quarter of `memory` is enough for them, else made for each group."""
        self.network = network
        self.final_norm = frozen_norm(network.final_norm, point.final_inverse_std, point.final_standardised)
        self.sublayers: list[PulledSublayer] = []
        x = point.embedding
        heads = sum(s.maps.heads for block in network.blocks for s in block if isinstance(s.maps, AttentionMaps))
        keep = heads * len(x) ** 2 * x.element_size() <= memory // 4
        for block, frozen_block, inputs in zip(network.blocks, point.blocks, folded, strict=True):
            for pieces in zip(block, frozen_block, inputs, strict=True):
                self.sublayers.append(freeze(*pieces, x, keep))
                if (after := self.sublayers[-1].norm_after) is not None:
                    x = after.output()

    def __call__(self, g: Float[Tensor, "N E"], targets: range) -> Float[Tensor, "N T D"]:
        """From each target's hidden state to the embeddings of all positions up to the last target."""
        rows, at = g, Places(targets, True, g.device)
        if self.network.project_out is not None:
            rows = rows @ self.network.project_out.weight.T
        if self.final_norm is not None:
            rows = self.final_norm.pull(rows, at)
        for sublayer in reversed(self.sublayers):
            rows, at = sublayer.pull(rows, at)
        return at.pad(rows)

    def groups(self, targets: range, memory: int) -> Iterator[range]:
        """Consecutive targets that go through the network together. ValueError if one alone does not fit."""
        start = stop = targets.start
        while start < targets.stop:
            stop += 1
            if self.bytes_needed(start, stop) > memory:
                raise ValueError(
                    f"the gradient of one target with {stop} positions needs "
                    f"{format_bytes(self.bytes_needed(start, stop))}, {format_bytes(max(memory, 0))} are left: "
                    "allow more memory or use a shorter context"
                )
            while stop < targets.stop and self.fit_together(start, stop + 1, memory):
                stop += 1
            yield range(start, stop)
            start = stop

    def fit_together(self, start: int, stop: int, memory: int) -> bool:
        return rows_of(start, stop) <= GROUP_ROWS and self.bytes_needed(start, stop) <= memory

    def bytes_held(self) -> int:
        """Bytes beside the model that live as long as the pullback."""
        bodies = [s.body for s in self.sublayers]
        norms = [norm for s in self.sublayers for norm in (s.norm_before, s.norm_after) if norm is not None]
        return (
            sum(bytes_of(b.up, b.slope) for b in bodies if isinstance(b, PulledMLP))
            + sum(
                bytes_of(b.inputs, b.query, b.key, b.value) + b.weights.nbytes
                for b in bodies
                if isinstance(b, PulledAttention)
            )
            + bytes_of(*(norm.standardised for norm in norms))
        )

    def bytes_needed(self, start: int, stop: int) -> int:
        """Bytes of all that a group of targets needs on its way."""
        attention = next(s.body for s in self.sublayers if isinstance(s.body, PulledAttention))
        neurons = max(s.body.slope.shape[1] for s in self.sublayers if isinstance(s.body, PulledMLP))
        hidden, width = len(attention.inputs), len(attention.output)
        # Rows with their neurons, or with queries, keys and values; in rectangles these again, scores,
        # their product with the weights, and the weights repeated for every target.
        row = 4 * hidden + max(neurons, 4 * width)
        padded = 6 * width + 3 * attention.heads * stop
        model_own = 4 * attention.heads * stop * stop
        numbers = rows_of(start, stop) * row + (stop - start) * stop * padded + model_own
        return attention.inputs.element_size() * numbers


def rows_of(start: int, stop: int) -> int:
    """(target, position ≤ target) pairs of the targets [start, stop)."""
    return (stop - start) * (start + 1 + stop) // 2
