"""Scoring layers: by gradient × activation at every token, and by exact direct shares at the last position."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from decomp.core.model import Model
from decomp.core.operators import FrozenNorm
from decomp.core.readout_rows import ReadoutRows
from decomp.locate.facts import Fact
from decomp.locate.hooks import capturing
from decomp.locate.layers.readings import Reading, combined, readings_of, reduced
from decomp.locate.layers.request import LayerRequest, check_linear
from decomp.locate.limits import check_finite, rows_within
from decomp.measures.functions import AttributedFunction, find_function


@dataclass(frozen=True, eq=False)
class LayerScores:
    """The scores of one fact: the attributed function's value, and the score of each layer's component at each token.

    Tokens are those of the prompt. Where all tokens of objects are summed over, there follow those that are given to
    predict the rest: of the true object, then of the false one.
    """

    value: Float[Tensor, ""]
    """The value of the attributed function."""
    components: dict[str, Float[Tensor, "L T"]]
    """The scores of each component, by layer and token."""


def apply(
    function: AttributedFunction, logits: Float[Tensor, "B V"], readings: Sequence[Fact | Reading]
) -> Float[Tensor, " B"]:
    """Return the attributed function of the token (and foil) of each reading."""
    token, foil = (
        logits.new_tensor([getattr(r, name) for r in readings], dtype=torch.long) for name in ("token", "foil")
    )
    return function(logits, token, foil)


def gradient_x_activation(model: Model, facts: Sequence[Fact], request: LayerRequest) -> Iterator[LayerScores]:
    """Yield each fact's scores by gradient × activation of the outputs of components, reduced as the request says.

    One forward and one backward pass give all layers. Batches are padded on the right, which causal attention never
    sees. ValueError, with the fact, for too little memory, and for scores that are not finite.
    """
    each = [readings_of(fact, request) for fact in facts]
    function = find_function(request.function_of_reading)
    done = products_of([one for readings in each for one in readings], model, function, request)
    for fact, readings in zip(facts, each, strict=True):
        parts = [next(done) for _ in readings]
        value = torch.stack([one.sign * value for one, (value, _) in zip(readings, parts, strict=True)]).sum()
        scores = {
            name: reduced(combined(fact, readings, [part[name] for _, part in parts]), request)
            for name in request.components
        }
        for name, score in scores.items():
            check_finite(score, lambda at, where=f"{fact.place}: {name}": f"{where} of layer {at[0]}, token {at[1]},")  # type: ignore[misc]
        yield LayerScores(value, scores)


def products_of(
    readings: Sequence[Reading], model: Model, function: AttributedFunction, request: LayerRequest
) -> Iterator[tuple[Float[Tensor, ""], dict[str, Float[Tensor, "L T D"]]]]:
    """Yield the function's value for each reading, with gradient ⊙ activation of the components' outputs."""
    for batch in batches(model, readings, request.memory):
        yield from gradients_of_batch(model, batch, function, request.components)


def batches(model: Model, readings: Sequence[Reading], memory: int) -> Iterator[Sequence[Reading]]:
    """Yield readings in order, as many at a time as fit into the memory. ValueError where not even one fits."""
    start = 0
    for stop in range(1, len(readings) + 1):
        longest = max(len(f.ids) for f in readings[start : stop + 1])
        if stop == start + 1:
            check_memory(model, len(readings[start].ids), memory)
        if stop == len(readings) or (stop + 1 - start) * longest * bytes_per_token(model, longest) > memory:
            yield readings[start:stop]
            start = stop


def check_memory(model: Model, length: int, memory: int) -> None:
    """Raise ValueError where a text of this length needs more than `memory` bytes."""
    rows_within(memory, length * bytes_per_token(model, length), f"a fact of {length} tokens")


def bytes_per_token(model: Model, length: int) -> int:
    """Return the bytes that a backward pass keeps for each token.

    They are a dozen hidden states, the neurons four times, and two rows of attention weights for each head.
    """
    kept = sum(
        2 * length * operator.heads + 8 * operator.hidden
        if operator.heads
        else 4 * len(operator.inputs) * operator.neurons + 4 * operator.hidden
        for operator in model.network().operators
    )
    return int(kept * model.dtype.itemsize)


def gradients_of_batch(
    model: Model, facts: Sequence[Reading], function: AttributedFunction, components: Sequence[str]
) -> Iterator[tuple[Float[Tensor, ""], dict[str, Float[Tensor, "L T D"]]]]:
    """Yield the value for each reading with gradient ⊙ activation of components' outputs, from one pass for all."""
    ids = pad_sequence([fact.ids for fact in facts], batch_first=True).to(model.device)
    with torch.enable_grad(), model.weights_frozen(), ExitStack() as hooks:
        outputs = {name: hooks.enter_context(capturing(model.modules_of(name))) for name in components}
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(facts)), [fact.last for fact in facts]]
        values = apply(function, model.unembedding().logits(last), facts)
        gradients = iter(torch.autograd.grad(values.sum(), [x for outs in outputs.values() for x in outs]))
    scores = {
        name: torch.stack([(x.detach() * next(gradients)).view(*ids.shape, -1) for x in outs], 1)
        for name, outs in outputs.items()
    }
    for row, fact in enumerate(facts):
        kept = {name: score[row, :, : len(fact.ids)] for name, score in scores.items()}
        yield values[row].detach(), kept


@dataclass(frozen=True, eq=False)
class DirectShares:
    """The direct shares of one fact: those of embedding, components and bias, which add up to the function's value."""

    value: Float[Tensor, ""]
    """The value of the attributed function."""
    components: dict[str, Float[Tensor, " L"]]
    """The share of each component's output in each layer."""
    embedding: Float[Tensor, ""]
    """The share of the embedding."""
    bias: Float[Tensor, ""]
    """The share of the biases of norms, of `project_out` and of the head; those of sublayers are in their outputs."""


def summed_shares(model: Model, fact: Fact, request: LayerRequest) -> DirectShares:
    """Return a fact's direct shares in the attributed function, summed over the tokens of its objects.

    ValueError for a function that is not linear in the logits, for soft-capped logits, for too little memory, and for
    shares that are not finite.
    """
    readings = readings_of(fact, request)
    for one in readings:
        check_memory(model, len(one.ids), request.memory)
    each = [(one.sign, direct_shares(model, one, request.function_of_reading)) for one in readings]
    names = each[0][1].components
    total = DirectShares(
        torch.stack([sign * shares.value for sign, shares in each]).sum(),
        {name: torch.stack([sign * shares.components[name] for sign, shares in each]).sum(0) for name in names},
        torch.stack([sign * shares.embedding for sign, shares in each]).sum(),
        torch.stack([sign * shares.bias for sign, shares in each]).sum(),
    )
    check_finite(torch.stack([total.value, total.bias]), lambda _: f"{fact.place}: the function or its bias")
    return total


@torch.no_grad()
def direct_shares(model: Model, fact: Fact | Reading, function: str) -> DirectShares:
    """Return the share of each sublayer's output at the last position in a function of the logits.

    The function is pulled back through the residual stream: through the frozen final norm, and where norms follow the
    sublayers (post-LayerNorm) through every later one. ValueError for a function that is not linear in the logits, and
    for soft-capped logits.
    """
    check_linear(function)
    model.unembedding().require_linear("direct")
    with (
        model.alone(),
        capturing(model.modules_of("attention")) as attention,
        capturing(model.modules_of("mlp")) as mlp,
    ):
        point = model.record(fact.ids.to(model.device))
    value, covector = value_and_gradient(model, point.hidden[-1], fact, find_function(function))
    outputs = {"attention": list(attention), "mlp": list(mlp)}
    last = ReadoutRows([len(point) - 1], True, covector.device)
    bias, g = value - covector @ point.hidden[-1], covector[None]
    if point.project_out is not None:
        bias = bias + read_bias(g, point.project_out.bias)
        g = g @ point.project_out.weight.T
    g, bias = through(point.final_norm, g, last, bias)
    shares: dict[str, list[Tensor]] = {name: [] for name in outputs}
    for stage in reversed([stage for block in point.blocks for stage in block]):
        g, bias = through(stage.norm, g, last, bias)
        for branch in reversed(stage.branches):
            name = "attention" if branch.operator.mixes_positions else "mlp"
            shares[name].insert(0, g[0] @ outputs[name].pop().view(len(fact.ids), -1)[-1])
    components = {name: torch.stack(parts) for name, parts in shares.items()}
    return DirectShares(value, components, g[0] @ point.embedding[-1], bias)


def through(
    norm: FrozenNorm | None, g: Float[Tensor, "1 D"], at: ReadoutRows, bias: Float[Tensor, ""]
) -> tuple[Float[Tensor, "1 D"], Float[Tensor, ""]]:
    """Return the readout g of a frozen norm's output turned into one of its input, and `bias` plus the share of β."""
    return (g, bias) if norm is None else (norm.pull(g, at), bias + read_bias(g, norm.norm.bias))


def read_bias(g: Float[Tensor, "1 D"], bias: Float[Tensor, " D"] | None) -> Float[Tensor, ""]:
    """Return the product of a readout with a bias; zero where the bias is None."""
    return g.new_zeros(()) if bias is None else g[0] @ bias


def value_and_gradient(
    model: Model, hidden: Float[Tensor, " E"], fact: Fact | Reading, function: AttributedFunction
) -> tuple[Float[Tensor, ""], Float[Tensor, " E"]]:
    """Return the value of the attributed function at a final hidden state, and its gradient there."""
    with torch.enable_grad():
        hidden = hidden.detach().requires_grad_()
        value = apply(function, model.unembedding().logits(hidden[None]), [fact])[0]
        (gradient,) = torch.autograd.grad(value, hidden)
    return value.detach(), gradient
