"""The computation graph: what every head, MLP and the logits read from everything before them.

A destination's input is a sum of sources' outputs and constants (output-projection biases), since the residual
stream is. Where a norm follows the residual sum (post-LayerNorm), the sum starts anew with the norm's output:
the norm is then a node too, and what comes after reads it alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decomp.core.rules import AttentionMaps, MLPMaps, Network, Norm

ATTENTION_INPUTS = ("query", "key", "value")


@dataclass(frozen=True)
class Stage:
    """Destinations that read one residual stream, and the sources that come of them."""

    maps: AttentionMaps | MLPMaps | None
    """None: a norm after the residual sum, or the logits."""
    norm: Norm | None
    """The destinations' own, which their inputs go through."""
    destinations: slice
    """Of attention: queries of every head, then keys, then values."""
    upstream: slice
    """The sources that they read."""
    sources: slice


@dataclass(frozen=True)
class Graph:
    """Sources and destinations by name, in network order; a destination is a node and which of its inputs."""

    sources: tuple[str, ...]
    destinations: tuple[tuple[str, str], ...]
    stages: tuple[Stage, ...]
    """In the order of the forward pass; the logits are the last."""

    def edges(self) -> Bool[Tensor, "U V"]:
        """Which sources each destination reads."""
        edges = torch.zeros(len(self.sources), len(self.destinations), dtype=torch.bool)
        for stage in self.stages:
            edges[stage.upstream, stage.destinations] = True
        return edges

    def places(self) -> Int[Tensor, "edges 2"]:
        """(source, destination) of every edge, by destination."""
        return self.edges().T.nonzero().flip(1)


def graph_of(network: Network) -> Graph:
    """Nodes are called `embedding`, `a0.h3` (head 3 of layer 0), `m0` (its MLP), `logits`; norms that are nodes
    `a0.norm`, `m0.norm`."""
    sources, destinations = ["embedding"], list[tuple[str, str]]()
    stages, first = list[Stage](), 0

    def add(
        maps: AttentionMaps | MLPMaps | None, norm: Norm | None, units: list[str], inputs: Sequence[str], gives: bool
    ) -> None:
        upstream = slice(first, len(sources))
        begin, origin = len(destinations), len(sources)
        destinations.extend((unit, name) for name in inputs for unit in units)
        sources.extend(units if gives else [])
        stages.append(Stage(maps, norm, slice(begin, len(destinations)), upstream, slice(origin, len(sources))))

    for layer, block in enumerate(network.blocks):
        for sublayer in block:
            if isinstance(sublayer.maps, AttentionMaps):
                name, units = f"a{layer}", [f"a{layer}.h{head}" for head in range(sublayer.maps.heads)]
                add(sublayer.maps, sublayer.norm_before, units, ATTENTION_INPUTS, True)
            else:
                name = f"m{layer}"
                add(sublayer.maps, sublayer.norm_before, [name], ["input"], True)
            if sublayer.norm_after is not None:
                add(None, sublayer.norm_after, [f"{name}.norm"], ["input"], True)
                first = len(sources) - 1
    add(None, network.final_norm, ["logits"], ["input"], False)
    return Graph(tuple(sources), tuple(destinations), tuple(stages))


Outputs = Sequence[Float[Tensor, "B T _"]]
"""What a forward pass gives: the embedding, then of every stage but the logits the mixed values of all heads
(before the output projection) or the output of the MLP or norm."""


def source_vectors(stage: Stage, output: Float[Tensor, "B T _"]) -> Float[Tensor, "units B T D"]:
    """What each source of a stage adds to the residual stream; the output projection's bias is no source's."""
    if not isinstance(stage.maps, AttentionMaps):
        return output[None]
    split = (stage.maps.heads, -1)
    return torch.einsum("bthv,hvd->hbtd", output.unflatten(-1, split), stage.maps.output.weight.unflatten(0, split))


def vectors(graph: Graph, outputs: Outputs) -> Float[Tensor, "U B T D"]:
    """The output of every source."""
    stages = zip(graph.stages, outputs[1:], strict=False)
    return torch.cat([outputs[0][None], *(source_vectors(stage, output) for stage, output in stages)])


def streams(graph: Graph, outputs: Outputs) -> list[Float[Tensor, "B T D"]]:
    """The residual stream that every stage would read if the sources gave these outputs."""
    stream = outputs[0]
    result = [stream]
    for stage, output in zip(graph.stages, outputs[1:], strict=False):
        if isinstance(stage.maps, AttentionMaps):
            stream = stream + stage.maps.output(output, affine=True)
        else:
            stream = output if stage.maps is None else stream + output
        result.append(stream)
    return result
