"""A slow forward pass with a mask on every edge, written from the definition; shares no code with the package."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.reference import Block, LayerNorm, layer_norm, network_of


def normalise(norm: LayerNorm | None, x: Tensor) -> Tensor:
    return x if norm is None else norm.linear(x, norm.sigma(x)) + norm.constant()


def causal_attention(query: Tensor, key: Tensor, scale: float) -> Tensor:
    scores = query @ key.T * scale
    return torch.softmax(scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf")), -1)


class EdgeForward:
    """One text through the model; `difference(source, current)` times `masks[source, node, input]` is added to the
    inputs, `replaced` takes the place of outputs. Afterwards `outputs` holds every source's output, `logits` those of
    the last position."""

    def __init__(self, model: PreTrainedModel, ids: Tensor, masks=None, difference=None, replaced=None) -> None:
        self.masks, self.difference, self.replaced = masks, difference, replaced or {}
        network = network_of(model)
        self.stream = self.replaced.get("embedding", network.embed(ids))
        self.outputs = {"embedding": self.stream}
        self.upstream = ["embedding"]
        for number, block in enumerate(network.blocks):
            self.attention(block, number)
            self.mlp(block, number)
        x = self.read("logits", "input")
        x = x if network.final_norm is None else normalise(layer_norm(network.final_norm), x)
        if network.project_out is not None:
            x = network.project_out(x)
        self.logits = model.lm_head(x)[-1]

    def read(self, node: str, name: str) -> Tensor:
        if self.masks is None:
            return self.stream
        moves = [self.masks[u, node, name] * self.difference(u, self.outputs[u]) for u in self.upstream]
        return self.stream + sum(moves)

    def give(self, node: str, output: Tensor) -> None:
        self.outputs[node] = output
        self.upstream.append(node)

    def norm_after(self, node: str, norm: LayerNorm) -> None:
        self.stream = self.replaced.get(node, normalise(norm, self.read(node, "input")))
        self.outputs[node], self.upstream = self.stream, [node]

    def attention(self, block: Block, number: int) -> None:
        norm = block.attention_norm if block.norm_first else None
        width, heads = block.value[0].shape[1] // block.heads, {}
        for h in range(block.heads):
            part, name = slice(h * width, (h + 1) * width), f"a{number}.h{h}"
            query, key, value = (
                normalise(norm, self.read(name, kind)) @ pair[0][:, part] + pair[1][part]
                for kind, pair in (("query", block.query), ("key", block.key), ("value", block.value))
            )
            output = causal_attention(query, key, block.score_scale) @ value @ block.output[0][part]
            heads[name] = self.replaced.get(name, output)
        for name, output in heads.items():
            self.give(name, output)
        self.stream = self.stream + sum(heads.values()) + block.output[1]
        if not block.norm_first:
            self.norm_after(f"a{number}.norm", block.attention_norm)

    def mlp(self, block: Block, number: int) -> None:
        x = normalise(block.mlp_norm if block.norm_first else None, self.read(f"m{number}", "input"))
        output = block.activation(x @ block.up[0] + block.up[1]) @ block.down[0] + block.down[1]
        output = self.replaced.get(f"m{number}", output)
        self.give(f"m{number}", output)
        self.stream = self.stream + output
        if not block.norm_first:
            self.norm_after(f"m{number}.norm", block.mlp_norm)
