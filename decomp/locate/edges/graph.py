"""The computation graph: edges from every head and MLP to all later heads, MLPs and logits that read it.

A destination's input is a sum of sources' outputs and constants (output-projection biases), since the residual
stream is. Where a norm follows the residual sum (post-LayerNorm), the sum starts anew with the norm's output:
the norm is then a node too, and what comes after reads it alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.core.network import MLP, Affine, Attention, Branch, Mixture, Norm
from decomp.core.network import Stage as NetworkStage

ATTENTION_INPUTS = ("query", "key", "value")
Operator = Attention | MLP | Mixture
Inputs = Sequence[tuple[str, Sequence[str]]]
"""The inputs of a stage by name, each with the names of the units (heads, or one MLP) that have one."""


@dataclass(frozen=True)
class Stage:
    """A step of the graph: destinations that read one residual stream, and the sources whose outputs they make."""

    operator: Operator | None
    """The attention or MLP; None for a norm after the residual sum, and for the logits."""
    norm: Norm | None
    """The norm that the destinations' inputs go through first; None where there is none."""
    destinations: slice
    """The numbers of the destinations; those of attention are queries of all heads, then keys, then values."""
    upstream: slice
    """The numbers of the sources that the destinations read."""
    sources: slice
    """The numbers of the sources whose outputs the stage makes."""
    projections: tuple[Affine, ...] = ()
    """The maps of an attention to queries, keys and values; empty for other stages."""

    @property
    def heads(self) -> tuple[int, ...]:
        """Return the numbers of heads of an attention's queries, keys and values; empty for other stages."""
        if not isinstance(self.operator, Attention):
            return ()
        return self.operator.heads, self.operator.kv_heads, self.operator.kv_heads


@dataclass(frozen=True)
class Graph:
    """The computation graph: sources and destinations by name, in network order.

    A destination is a node together with the name of one of its inputs.
    """

    sources: tuple[str, ...]
    """The names of the sources."""
    destinations: tuple[tuple[str, str], ...]
    """The node and the input (such as `query`) of each destination."""
    stages: tuple[Stage, ...]
    """The stages in the order of the forward pass; the logits are the last."""

    def edges(self) -> Bool[Tensor, "U V"]:
        """Return a matrix of source × destination that is True where there is an edge."""
        edges = torch.zeros(len(self.sources), len(self.destinations), dtype=torch.bool)
        for stage in self.stages:
            edges[stage.upstream, stage.destinations] = True
        return edges

    def edge_indices(self) -> Int[Tensor, "edges 2"]:
        """Return every edge as the numbers of its source and destination, ordered by destination."""
        return self.edges().T.nonzero().flip(1)


class GraphBuilder:
    """A graph under construction, which follows the network block by block."""

    def __init__(self, projections: Iterable[tuple[Affine, ...]]) -> None:
        self.projections = iter(projections)
        self.sources, self.destinations, self.stages = ["embedding"], list[tuple[str, str]](), list[Stage]()
        self.first = 0
        """The number of the residual stream's first source: the embedding, or the last norm that follows a sum."""

    def stream(self) -> slice:
        """Return the numbers of the sources whose sum the residual stream is."""
        return slice(self.first, len(self.sources))

    def add(
        self, operator: Operator | None, norm: Norm | None, inputs: Inputs, gives: Sequence[str], upstream: slice
    ) -> None:
        """Add a stage with the units of each of its inputs, and the names of the sources whose outputs it makes."""
        begin, origin = len(self.destinations), len(self.sources)
        self.destinations.extend((unit, name) for name, units in inputs for unit in units)
        self.sources.extend(gives)
        places = slice(begin, len(self.destinations)), upstream, slice(origin, len(self.sources))
        own = next(self.projections) if isinstance(operator, Attention) else ()
        self.stages.append(Stage(operator, norm, *places, own))

    def add_branch(self, layer: int, branch: Branch, upstream: slice) -> str:
        """Add an attention or MLP, and return its name. ValueError for a norm after it."""
        if branch.norm_out is not None:
            raise ValueError(
                "edges are not defined for models with norms after a sublayer (as Gemma 2 and OLMo 2): "
                "use decomp layers or decomp score"
            )
        operator = branch.operator
        if not isinstance(operator, Attention):
            name = f"m{layer}"
            self.add(operator, branch.norm_in, [("input", [name])], [name], upstream)
            return name
        units = [f"a{layer}.h{head}" for head in range(operator.heads)]
        shared = units[: operator.kv_heads]
        inputs = list(zip(ATTENTION_INPUTS, (units, shared, shared), strict=True))
        self.add(operator, branch.norm_in, inputs, units, upstream)
        return f"a{layer}"

    def add_stage(self, layer: int, stage: NetworkStage) -> None:
        """Add the branches of one stage of the network, and the norm that follows their sum."""
        upstream = self.stream()
        *_, last = [self.add_branch(layer, branch, upstream) for branch in stage.branches]
        if stage.norm is not None:
            unit = [f"{last}.norm"]
            self.add(None, stage.norm, [("input", unit)], unit, self.stream())
            self.first = len(self.sources) - 1


def graph_of(model: Model) -> Graph:
    """Return the computation graph of a model.

    Nodes are called `embedding`, `a0.h3` (head 3 of layer 0), `m0` (the MLP of layer 0), `logits`, and for norms that
    are nodes `a0.norm`, `m0.norm`. Keys and values that heads share carry the number of the shared head. ValueError
    for a norm after a sublayer, since it mixes heads before they are added to the residual stream.
    """
    network, builder = model.network(), GraphBuilder(model.attention_projections())
    for layer, block in enumerate(network.blocks):
        for stage in block:
            builder.add_stage(layer, stage)
    builder.add(None, network.final_norm, [("input", ["logits"])], [], builder.stream())
    return Graph(tuple(builder.sources), tuple(builder.destinations), tuple(builder.stages))


Outputs = Sequence[Float[Tensor, "B T _"]]
"""The outputs of one forward pass: the embedding, then that of every stage but the logits.

The output of an attention is the mixed values of all heads, before the output projection.
"""


def source_vectors(stage: Stage, output: Float[Tensor, "B T _"]) -> Float[Tensor, "units B T D"]:
    """Return the vector that each source of a stage adds to the residual stream, the output projection's bias aside."""
    if not isinstance(stage.operator, Attention):
        return output[None]
    split, weight = (stage.operator.heads, -1), stage.operator.output.weight
    return torch.einsum("bthv,hvd->hbtd", output.unflatten(-1, split), weight.unflatten(0, split))


def vectors(graph: Graph, outputs: Outputs) -> Float[Tensor, "U B T D"]:
    """Return the vector that every source adds to the residual stream."""
    stages = zip(graph.stages, outputs[1:], strict=False)
    return torch.cat([outputs[0][None], *(source_vectors(stage, output) for stage, output in stages)])


def streams(graph: Graph, outputs: Outputs) -> list[Float[Tensor, "B T D"]]:
    """Return the residual stream that every stage would read if the sources had these outputs."""
    stream, result = outputs[0], list[Tensor]()
    pending, read = stream, None
    for stage, output in zip(graph.stages, [*outputs[1:], None], strict=True):
        if stage.upstream != read:
            # Stages with the same sources read one stream, side by side.
            stream, read = pending, stage.upstream
        result.append(stream)
        if output is None:
            break
        if isinstance(stage.operator, Attention):
            pending = pending + stage.operator.output(output, with_bias=True)
        else:
            pending = output if stage.operator is None else pending + output
    return result
