"""A slow decomposition by loops over pairs, written from the equations: the second oracle.

Reads weights from the plain transformers models and runs its own forward pass; shares no code with
the package.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, OPTForCausalLM, PreTrainedModel


@dataclass
class LayerNorm:
    gamma: Tensor | None
    beta: Tensor | None
    eps: float

    def sigma(self, x: Tensor) -> Tensor:
        return ((x - x.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True).add(self.eps).sqrt()

    def linear(self, v: Tensor, sigma: Tensor) -> Tensor:
        out = (v - v.mean(-1, keepdim=True)) / sigma
        return out if self.gamma is None else self.gamma * out

    def constant(self) -> Tensor | float:
        return 0.0 if self.beta is None else self.beta


@dataclass
class Block:
    query: tuple[Tensor, Tensor]
    key: tuple[Tensor, Tensor]
    value: tuple[Tensor, Tensor]
    output: tuple[Tensor, Tensor]
    up: tuple[Tensor, Tensor]
    down: tuple[Tensor, Tensor]
    attention_norm: LayerNorm
    mlp_norm: LayerNorm
    norm_first: bool
    heads: int
    score_scale: float
    softmax_dtype: torch.dtype
    activation: object


def linear_pair(module, transpose: bool) -> tuple[Tensor, Tensor]:
    weight = module.weight.T if transpose else module.weight
    bias = torch.zeros(weight.shape[1], dtype=weight.dtype) if module.bias is None else module.bias
    return weight.detach(), bias.detach()


def layer_norm(module) -> LayerNorm:
    gamma = None if module.weight is None else module.weight.detach()
    beta = None if module.bias is None else module.bias.detach()
    return LayerNorm(gamma, beta, module.eps)


def opt_blocks(model: OPTForCausalLM) -> list[Block]:
    return [
        Block(
            query=linear_pair(layer.self_attn.q_proj, True),
            key=linear_pair(layer.self_attn.k_proj, True),
            value=linear_pair(layer.self_attn.v_proj, True),
            output=linear_pair(layer.self_attn.out_proj, True),
            up=linear_pair(layer.fc1, True),
            down=linear_pair(layer.fc2, True),
            attention_norm=layer_norm(layer.self_attn_layer_norm),
            mlp_norm=layer_norm(layer.final_layer_norm),
            norm_first=model.config.do_layer_norm_before,
            heads=model.config.num_attention_heads,
            score_scale=(model.config.hidden_size // model.config.num_attention_heads) ** -0.5,
            softmax_dtype=layer.fc1.weight.dtype,
            activation=layer.activation_fn,
        )
        for layer in model.model.decoder.layers
    ]


def gpt2_blocks(model: GPT2LMHeadModel) -> list[Block]:
    config, blocks = model.config, []
    for number, layer in enumerate(model.transformer.h):
        weight, bias = linear_pair(layer.attn.c_attn, False)
        query, key, value = zip(weight.chunk(3, 1), bias.chunk(3), strict=True)
        scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        blocks.append(
            Block(
                query=query,
                key=key,
                value=value,
                output=linear_pair(layer.attn.c_proj, False),
                up=linear_pair(layer.mlp.c_fc, False),
                down=linear_pair(layer.mlp.c_proj, False),
                attention_norm=layer_norm(layer.ln_1),
                mlp_norm=layer_norm(layer.ln_2),
                norm_first=True,
                heads=config.n_head,
                score_scale=scale / (number + 1 if config.scale_attn_by_inverse_layer_idx else 1),
                softmax_dtype=weight.dtype,
                activation=layer.mlp.act,
            )
        )
    return blocks


def derivative(activation, a: Tensor) -> Tensor:
    a = a.detach().clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(activation(a).sum(), a)
    return slope


def slope_and_intercept(activation, a: Tensor, rule: str) -> tuple[Tensor, Tensor]:
    value = activation(a).detach()
    tangent = derivative(activation, a)
    if rule == "secant":
        slope = torch.tensor(
            [float(v / x) if x != 0 else float(t) for x, v, t in zip(a, value, tangent, strict=True)], dtype=a.dtype
        )
        return slope, torch.zeros_like(a)
    return tangent, value - tangent * a


def attention_weights(block: Block, states: list[Tensor]) -> list[list[Tensor]]:
    """weights[head][i] over j ≤ i."""
    width = block.query[0].shape[1] // block.heads
    weights: list[list[Tensor]] = []
    for h in range(block.heads):
        part = slice(h * width, (h + 1) * width)
        queries = [x @ block.query[0][:, part] + block.query[1][part] for x in states]
        keys = [x @ block.key[0][:, part] + block.key[1][part] for x in states]
        rows = []
        for i, query in enumerate(queries):
            scores = torch.stack([query @ keys[j] * block.score_scale for j in range(i + 1)])
            rows.append(torch.softmax(scores, 0, dtype=block.softmax_dtype).to(query.dtype))
        weights.append(rows)
    return weights


Parts = tuple[list[Tensor], dict[tuple[int, int], Tensor], list[Tensor]]


def norm_step(norm: LayerNorm, parts: Parts) -> Parts:
    x, n, b = parts
    sigmas = [norm.sigma(state) for state in x]
    return (
        [norm.linear(state, s) + norm.constant() for state, s in zip(x, sigmas, strict=True)],
        {(i, k): norm.linear(v, sigmas[i]) for (i, k), v in n.items()},
        [norm.linear(bias, s) + norm.constant() for bias, s in zip(b, sigmas, strict=True)],
    )


def attention_step(block: Block, parts: Parts) -> Parts:
    x, n, b = parts
    weights = attention_weights(block, x)
    width = block.value[0].shape[1] // block.heads

    def head(v: Tensor, h: int) -> Tensor:
        part = slice(h * width, (h + 1) * width)
        return v @ block.value[0][:, part] @ block.output[0][part]

    def value_constant(h: int) -> Tensor:
        part = slice(h * width, (h + 1) * width)
        return block.value[1][part] @ block.output[0][part]

    every = range(block.heads)
    new_n = {(i, k): sum(weights[h][i][j] * head(n[j, k], h) for h in every for j in range(k, i + 1)) for (i, k) in n}

    def with_constants(vectors: list[Tensor]) -> list[Tensor]:
        return [
            sum(weights[h][i][j] * (head(vectors[j], h) + value_constant(h)) for h in every for j in range(i + 1))
            + block.output[1]
            for i in range(len(vectors))
        ]

    return with_constants(x), new_n, with_constants(b)


def mlp_step(block: Block, parts: Parts, rule: str) -> Parts:
    x, n, b = parts
    lines = [slope_and_intercept(block.activation, v @ block.up[0] + block.up[1], rule) for v in x]

    def linear(v: Tensor, i: int) -> Tensor:
        return (lines[i][0] * (v @ block.up[0])) @ block.down[0]

    def with_constants(v: Tensor, i: int) -> Tensor:
        slope, intercept = lines[i]
        return (slope * (v @ block.up[0] + block.up[1]) + intercept) @ block.down[0] + block.down[1]

    return (
        [block.activation(v @ block.up[0] + block.up[1]) @ block.down[0] + block.down[1] for v in x],
        {(i, k): linear(v, i) for (i, k), v in n.items()},
        [with_constants(v, i) for i, v in enumerate(b)],
    )


def add(one: Parts, other: Parts) -> Parts:
    return (
        [a + b for a, b in zip(one[0], other[0], strict=True)],
        {pair: v + other[1][pair] for pair, v in one[1].items()},
        [a + b for a, b in zip(one[2], other[2], strict=True)],
    )


@dataclass
class Network:
    """What the loops read of a plain model."""

    embed: Callable[[Tensor], Tensor]
    layers: Sequence[nn.Module]
    blocks: Sequence[Block]
    values: Sequence[nn.Module]
    """Modules whose last outputs are the value vectors."""
    final_norm: nn.Module | None
    project_out: nn.Linear | None = None


def opt_network(model: OPTForCausalLM) -> Network:
    decoder = model.model.decoder

    def embed(ids: Tensor) -> Tensor:
        x = decoder.embed_tokens(ids)
        x = x if decoder.project_in is None else decoder.project_in(x)
        return x + decoder.embed_positions.weight[torch.arange(len(ids)) + 2]

    values = [layer.self_attn.v_proj for layer in decoder.layers]
    return Network(embed, decoder.layers, opt_blocks(model), values, decoder.final_layer_norm, decoder.project_out)


def gpt2_network(model: GPT2LMHeadModel) -> Network:
    base = model.transformer

    def embed(ids: Tensor) -> Tensor:
        return base.wte(ids) + base.wpe.weight[: len(ids)]

    return Network(embed, base.h, gpt2_blocks(model), [layer.attn.c_attn for layer in base.h], base.ln_f)


READERS = {OPTForCausalLM: opt_network, GPT2LMHeadModel: gpt2_network}


def network_of(model: PreTrainedModel) -> Network:
    (reader,) = (reader for kind, reader in READERS.items() if isinstance(model, kind))
    return reader(model)


@torch.no_grad()
def decompose_by_loops(
    model: PreTrainedModel, ids: Tensor, rule: str
) -> list[tuple[Tensor, dict[tuple[int, int], Tensor], Tensor]]:
    """After the embedding, after each block, and at the end: hidden, contributions by pair, bias."""
    network = network_of(model)
    x = list(network.embed(ids))
    zero = torch.zeros_like(x[0])
    n = {(i, k): (x[i] if i == k else zero) for i in range(len(ids)) for k in range(i + 1)}
    parts: Parts = (x, n, [zero for _ in x])
    layers = [parts]
    for block in network.blocks:
        inner = norm_step(block.attention_norm, parts) if block.norm_first else parts
        parts = add(parts, attention_step(block, inner))
        parts = parts if block.norm_first else norm_step(block.attention_norm, parts)
        inner = norm_step(block.mlp_norm, parts) if block.norm_first else parts
        parts = add(parts, mlp_step(block, inner, rule))
        parts = parts if block.norm_first else norm_step(block.mlp_norm, parts)
        layers.append(parts)
    if network.final_norm is not None:
        parts = norm_step(layer_norm(network.final_norm), parts)
    if (project := network.project_out) is not None:
        parts = (
            [project(v) for v in parts[0]],
            {p: project(v) for p, v in parts[1].items()},
            [project(v) for v in parts[2]],
        )
    layers.append(parts)
    return [(torch.stack(x), n, torch.stack(b)) for x, n, b in layers]
