"""The computation graph: what every head, MLP and the logits read from everything before them.

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
"""The name of each input of a stage, and the units that have one."""


@dataclass(frozen=True)
class Stage:
    """Destinations that read one residual stream, and the sources that come of them."""

    operator: Operator | None
    """None: a norm after the residual sum, or the logits."""
    norm: Norm | None
    """The destinations' own, which their inputs go through."""
    destinations: slice
    """Of attention: queries of every head, then keys, then values."""
    upstream: slice
    """The sources that they read."""
    sources: slice
    projections: tuple[Affine, ...] = ()
    """Of attention: the maps to queries, keys and values."""

    @property
    def heads(self) -> tuple[int, ...]:
        """Return how many queries, keys and values an attention has; nothing for other stages."""
        if not isinstance(self.operator, Attention):
            return ()
        return self.operator.heads, self.operator.kv_heads, self.operator.kv_heads


@dataclass(frozen=True)
class Graph:
    """Sources and destinations by name, in network order; a destination is a node and which of its inputs."""

    sources: tuple[str, ...]
    destinations: tuple[tuple[str, str], ...]
    stages: tuple[Stage, ...]
    """In the order of the forward pass; the logits are the last."""

    def edges(self) -> Bool[Tensor, "U V"]:
        """Return which sources each destination reads."""
        edges = torch.zeros(len(self.sources), len(self.destinations), dtype=torch.bool)
        for stage in self.stages:
            edges[stage.upstream, stage.destinations] = True
        return edges

    def places(self) -> Int[Tensor, "edges 2"]:
        """Return every edge as the numbers of its source and destination, ordered by destination."""
        return self.edges().T.nonzero().flip(1)


class Growing:
    """A graph as far as the network has been followed."""

    def __init__(self, projections: Iterable[tuple[Affine, ...]]) -> None:
        self.projections = iter(projections)
        self.sources, self.destinations, self.stages = ["embedding"], list[tuple[str, str]](), list[Stage]()
        self.first = 0
        """The first source of the residual stream: the last norm that follows a sum, where there is one."""

    def stream(self) -> slice:
        """Return the sources that the residual stream is the sum of."""
        return slice(self.first, len(self.sources))

    def add(
        self, operator: Operator | None, norm: Norm | None, inputs: Inputs, gives: Sequence[str], upstream: slice
    ) -> None:
        """Add a stage with the units of each of its inputs, and the sources that come of it."""
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
        """Add the branches that read one stream, and the norm that follows their sum."""
        upstream = self.stream()
        *_, last = [self.add_branch(layer, branch, upstream) for branch in stage.branches]
        if stage.norm is not None:
            unit = [f"{last}.norm"]
            self.add(None, stage.norm, [("input", unit)], unit, self.stream())
            self.first = len(self.sources) - 1


def graph_of(model: Model) -> Graph:
    """Return the computation graph of a decomposed model.

    Nodes are called `embedding`, `a0.h3` (head 3 of layer 0), `m0` (its MLP), `logits`; norms that are nodes
    `a0.norm`, `m0.norm`; keys and values that heads share carry the number of the shared head. ValueError for
    norms after a sublayer, which mix its heads before they are added to the residual stream.
    """
    network, growing = model.network(), Growing(model.attention_projections())
    for layer, block in enumerate(network.blocks):
        for stage in block:
            growing.add_stage(layer, stage)
    growing.add(None, network.final_norm, [("input", ["logits"])], [], growing.stream())
    return Graph(tuple(growing.sources), tuple(growing.destinations), tuple(growing.stages))


Outputs = Sequence[Float[Tensor, "B T _"]]
"""What a forward pass gives: the embedding, then of every stage but the logits the mixed values of all heads
(before the output projection) or the output of the MLP or norm."""


def source_vectors(stage: Stage, output: Float[Tensor, "B T _"]) -> Float[Tensor, "units B T D"]:
    """Return what each source of a stage adds to the residual stream, without the output projection's bias."""
    if not isinstance(stage.operator, Attention):
        return output[None]
    split, weight = (stage.operator.heads, -1), stage.operator.output.weight
    return torch.einsum("bthv,hvd->hbtd", output.unflatten(-1, split), weight.unflatten(0, split))


def vectors(graph: Graph, outputs: Outputs) -> Float[Tensor, "U B T D"]:
    """Return the output of every source."""
    stages = zip(graph.stages, outputs[1:], strict=False)
    return torch.cat([outputs[0][None], *(source_vectors(stage, output) for stage, output in stages)])


def streams(graph: Graph, outputs: Outputs) -> list[Float[Tensor, "B T D"]]:
    """Return the residual stream that every stage would read if the sources gave these outputs."""
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
