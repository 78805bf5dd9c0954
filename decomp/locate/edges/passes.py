"""Forward passes with every edge moved towards its ablation, together or each by its own mask.

A destination's input is in_v + Σ_u m_uv · (ablated_u − current_u), `current_u` being source u's output in the
very pass; norms are the destinations' own and are not frozen.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.network import Affine, Norm
from decomp.locate.edges.graph import Graph, Outputs, source_vectors


class UniformMask:
    """An intervention with one mask value for all edges, which moves inputs that far to the ablated residual stream.

    It keeps the sources' outputs, and all that gradients with respect to the destinations' inputs need.
    """

    def __init__(
        self,
        graph: Graph,
        mask: float = 0.0,
        ablated: Sequence[Float[Tensor, "B T D"]] = (),
        replaced: tuple[int, Float[Tensor, "B T _"]] | None = None,
    ) -> None:
        """Prepare the intervention; `ablated` is the residual stream of every stage towards which inputs move.

        `replaced` gives the number of one stage's output, and the value that replaces it for all stages that read it.
        """
        self.graph, self.mask, self.ablated, self.replaced = graph, mask, ablated, replaced
        self.shift: Float[Tensor, "B T D"] | None = None
        """The change of the residual stream by the replaced output; None before that stage."""
        self.outputs: list[Float[Tensor, "B T _"]] = []
        self.inputs: dict[int, Float[Tensor, "B T D"]] = {}
        self.projections: dict[tuple[int, int], Float[Tensor, "B T HV"]] = {}

    def embedding(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        hidden = (hidden if self.replaced is None or self.replaced[0] else self.replaced[1]).detach()
        self.outputs.append(hidden)
        return hidden.clone().requires_grad_(torch.is_grad_enabled())

    def input(self, stage: int, stream: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        if self.shift is not None and self.reads_replaced(stage):
            stream = stream + self.shift
        # A tensor of its own even at mask 0: the stream goes on to other destinations.
        moved = stream.lerp(self.ablated[stage], self.mask) if self.ablated else stream.clone()
        self.inputs[stage] = moved
        return moved

    def projected(self, stage: int, kind: int, output: Float[Tensor, "B T HV"]) -> Float[Tensor, "B T HV"]:
        self.projections[stage, kind] = output
        return output

    def output(self, stage: int, value: Float[Tensor, "B T _"]) -> None:
        self.outputs.append(value.detach())
        place = self.graph.stages[stage]
        if self.replaced is not None and self.replaced[0] == stage + 1:
            self.shift = source_vectors(place, self.replaced[1] - value).sum(0)

    def reads_replaced(self, stage: int) -> bool:
        """Return whether a stage reads a source whose output is replaced."""
        assert self.replaced is not None
        read, given = self.graph.stages[stage].upstream, self.graph.stages[self.replaced[0] - 1].sources
        return read.start <= given.start and given.stop <= read.stop

    def gradients(self, loss: Float[Tensor, ""]) -> Iterator[Float[Tensor, "destinations B T D"]]:
        """Yield ∂loss/∂in_v for the destinations v of each stage, from one backward pass."""
        wanted = [
            [self.projections[number, kind] for kind in range(3)] if stage.heads else [self.inputs[number]]
            for number, stage in enumerate(self.graph.stages)
        ]
        gradients = iter(torch.autograd.grad(loss, [tensor for group in wanted for tensor in group]))
        with torch.no_grad():
            for number, stage in enumerate(self.graph.stages):
                group = [next(gradients) for _ in wanted[number]]
                if stage.heads:
                    normalised = torch.cat(list(through_projections(stage.projections, stage.heads, group)))
                    yield through_norm(stage.norm, self.inputs[number].detach(), normalised)
                else:
                    yield group[0][None]


def through_projections(
    projections: Sequence[Affine], heads: Sequence[int], gradients: Sequence[Float[Tensor, "B T HV"]]
) -> Iterator[Float[Tensor, "H B T D"]]:
    """Yield gradients with respect to the heads' inputs after the norm, from those of queries, keys and values."""
    for projection, count, gradient in zip(projections, heads, gradients, strict=True):
        weight = projection.weight.unflatten(-1, (count, -1))
        yield torch.einsum("bthv,dhv->hbtd", gradient.unflatten(-1, (count, -1)), weight)


def through_norm(
    norm: Norm | None, x: Float[Tensor, "B T D"], gradients: Float[Tensor, "N B T D"]
) -> Float[Tensor, "N B T D"]:
    """Return gradients with respect to a norm's input x, from those with respect to its output.

    With x̂ the normalised x: (g − mean(g) − x̂ · mean(x̂ ⊙ g)) · inverse_std, g = γ ⊙ gradient; RMSNorm: no mean(g).
    """
    if norm is None:
        return gradients
    inverse_std = norm.inverse_std(x)[..., None]
    unit = (x - x.mean(-1, keepdim=True) if norm.centred else x) * inverse_std
    if norm.weight is not None:
        gradients = gradients * norm.weight
    along = torch.einsum("btd,nbtd->nbt", unit, gradients)[..., None] / x.shape[-1]
    gradients = torch.addcmul(gradients, unit, along, value=-1)
    if norm.centred:
        gradients -= gradients.mean(-1, keepdim=True)
    return gradients.mul_(inverse_std)


class EdgeMasks:
    """An intervention with a mask value for every edge (source, destination), for passes without gradients."""

    def __init__(self, graph: Graph, masks: Float[Tensor, "U V"], ablated: Outputs) -> None:
        self.graph, self.masks, self.ablated = graph, masks, ablated
        self.differences: list[Float[Tensor, "units B T D"]] = []
        self.inputs: Float[Tensor, "destinations B T D"]

    def embedding(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        self.differences.append((self.ablated[0] - hidden)[None])
        return hidden

    def input(self, stage: int, stream: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        place = self.graph.stages[stage]
        masks = self.masks[place.upstream, place.destinations]
        differences = torch.cat(self.differences)[place.upstream]
        self.inputs = stream + torch.einsum("uv,ubtd->vbtd", masks, differences)
        return self.inputs[0]

    def projected(self, stage: int, kind: int, output: Float[Tensor, "B T HV"]) -> Float[Tensor, "B T HV"]:
        """Return the queries, keys or values of all heads, each projected from the head's own masked input."""
        place = self.graph.stages[stage]
        projection = place.projections[kind]
        x = self.inputs.split(place.heads)[kind]
        if place.norm is not None:
            x = place.norm.scale(place.norm.standardise(x, place.norm.inverse_std(x)), with_bias=True)
        weight = projection.weight.unflatten(-1, (place.heads[kind], -1))
        projected = torch.einsum("hbtd,dhv->bthv", x, weight).flatten(-2)
        return projected if projection.bias is None else projected + projection.bias

    def output(self, stage: int, value: Float[Tensor, "B T _"]) -> None:
        ablated = self.ablated[len(self.differences)]
        self.differences.append(source_vectors(self.graph.stages[stage], ablated - value))
