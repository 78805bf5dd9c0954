"""What each layer gives to a prediction: by gradients at every token, and exactly at the last one."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from decomp.core.rules import AttentionMaps, Norm
from decomp.locate.facts import Fact
from decomp.locate.hooks import capturing
from decomp.measures.functions import AttributedFunction, find_function

COMPONENTS = ("mlp", "attention", "residual")
LINEAR_FUNCTIONS = ("logit", "contrast_logit", "contrast_log2_prob")
"""Functions that shares of the logits add up to."""


@dataclass(frozen=True)
class LayerScores:
    """One fact: the attributed function's value, and what each layer's component has in it."""

    value: Float[Tensor, ""]
    components: dict[str, Float[Tensor, "L T"]]


def apply(function: AttributedFunction, logits: Float[Tensor, "B V"], facts: Sequence[Fact]) -> Float[Tensor, " B"]:
    token, foil = (logits.new_tensor([getattr(f, name) for f in facts], dtype=torch.long) for name in ("token", "foil"))
    return function(logits, token, foil)


def gradient_x_activation(
    model: Any, facts: Sequence[Fact], function: str, components: Sequence[str], memory: int
) -> Iterator[LayerScores]:
    """Σ_hidden gradient · activation of the outputs of components, of all layers by one forward and one backward pass.

    Batches of facts are padded on the right, where causal attention never looks.
    """
    asked = find_function(function)
    for batch in batches(model, facts, memory):
        yield from gradients_of_batch(model, batch, asked, components)


def batches(model: Any, facts: Sequence[Fact], memory: int) -> Iterator[Sequence[Fact]]:
    """Facts in order, as many at a time as fit; at least one."""
    start = 0
    for stop in range(1, len(facts) + 1):
        longest = max(len(f.ids) for f in facts[start : stop + 1])
        if stop == len(facts) or (stop + 1 - start) * longest * bytes_per_token(model, longest) > memory:
            yield facts[start:stop]
            start = stop


def bytes_per_token(model: Any, length: int) -> int:
    """What a backward pass keeps: about a dozen states, the neurons four times, two rows of attention per head."""
    blocks = model.network().blocks
    kept = sum(
        2 * length * sublayer.maps.heads + 8 * sublayer.maps.output.weight.shape[1]
        if isinstance(sublayer.maps, AttentionMaps)
        else 4 * sublayer.maps.up.weight.shape[1] + 4 * sublayer.maps.down.weight.shape[1]
        for block in blocks
        for sublayer in block
    )
    return int(kept * model.dtype.itemsize)


def gradients_of_batch(
    model: Any, facts: Sequence[Fact], function: AttributedFunction, components: Sequence[str]
) -> Iterator[LayerScores]:
    ids = pad_sequence([fact.ids for fact in facts], batch_first=True).to(model.device)
    with torch.enable_grad(), model.weights_frozen(), ExitStack() as hooks:
        outputs = {name: hooks.enter_context(capturing(model.modules_of(name))) for name in components}
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(facts)), [fact.last for fact in facts]]
        values = apply(function, model.unembedding().logits(last), facts)
        gradients = iter(torch.autograd.grad(values.sum(), [x for outs in outputs.values() for x in outs]))
    scores = {
        name: torch.stack([(x.detach() * next(gradients)).sum(-1).view(ids.shape) for x in outs], 1)
        for name, outs in outputs.items()
    }
    for row, fact in enumerate(facts):
        kept = {name: score[row, :, : len(fact.ids)] for name, score in scores.items()}
        yield LayerScores(values[row].detach(), kept)


@dataclass(frozen=True)
class DirectShares:
    """One fact: shares in the attributed function at the last position, which add up to its value."""

    value: Float[Tensor, ""]
    components: dict[str, Float[Tensor, " L"]]
    embedding: Float[Tensor, ""]
    bias: Float[Tensor, ""]
    """Of the norms, `project_out` and the head; those of a sublayer are in its output."""


def check_linear(function: str) -> None:
    if function not in LINEAR_FUNCTIONS:
        raise ValueError(
            f"direct shares add up to a function that is linear in the logits, {function} is not: "
            f"choose one of {', '.join(LINEAR_FUNCTIONS)}"
        )


@torch.no_grad()
def direct_shares(model: Any, fact: Fact, function: str) -> DirectShares:
    """Each sublayer's output at the last position, times what the frozen norms after it make of it, in the logits.

    A covector goes back through the residual stream from the head: through the final norm, and where norms
    follow the sublayers (post-LayerNorm) through every later one. ValueError for a function that is not linear
    in the logits.
    """
    check_linear(function)
    with capturing(model.modules_of("attention")) as attention, capturing(model.modules_of("mlp")) as mlp:
        point = model.record(fact.ids.to(model.device))
    value, covector = value_and_gradient(model, point.hidden[-1], fact, find_function(function))
    network, outputs = model.network(), {"attention": list(attention), "mlp": list(mlp)}
    bias = value - covector @ point.hidden[-1]
    if network.project_out is not None:
        if network.project_out.bias is not None:
            bias = bias + covector @ network.project_out.bias
        covector = network.project_out.weight @ covector
    covector, constant = pull(covector, network.final_norm, point.final_inverse_std)
    bias = bias + constant
    shares: dict[str, list[Tensor]] = {name: [] for name in outputs}
    for block, frozen_block in zip(reversed(network.blocks), reversed(point.blocks), strict=True):
        for sublayer, frozen in zip(reversed(block), reversed(frozen_block), strict=True):
            covector, constant = pull(covector, sublayer.norm_after, frozen.inverse_std_after)
            bias = bias + constant
            name = "attention" if isinstance(sublayer.maps, AttentionMaps) else "mlp"
            shares[name].insert(0, covector @ outputs[name].pop().view(len(fact.ids), -1)[-1])
    components = {name: torch.stack(parts) for name, parts in shares.items()}
    return DirectShares(value, components, covector @ point.embedding[-1], bias)


def value_and_gradient(
    model: Any, hidden: Float[Tensor, " E"], fact: Fact, function: AttributedFunction
) -> tuple[Float[Tensor, ""], Float[Tensor, " E"]]:
    with torch.enable_grad():
        hidden = hidden.detach().requires_grad_()
        value = apply(function, model.unembedding().logits(hidden[None]), [fact])[0]
        (gradient,) = torch.autograd.grad(value, hidden)
    return value.detach(), gradient


def pull(
    covector: Float[Tensor, " D"], norm: Norm | None, inverse_std: Float[Tensor, " T"] | None
) -> tuple[Float[Tensor, " D"], Float[Tensor, ""]]:
    """`covector · norm(x)` as a covector of x and a constant, the norm frozen at the last position."""
    if norm is None:
        return covector, covector.new_zeros(())
    assert inverse_std is not None
    constant = covector.new_zeros(()) if norm.bias is None else covector @ norm.bias
    return inverse_std[-1] * norm.fold_into(covector[:, None])[:, 0], constant
