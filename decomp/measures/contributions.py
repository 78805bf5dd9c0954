"""Measures by contributions: ΔLP, and shares in a linear function such as a logit.

They are computed in one of two directions, whichever takes fewer rows. Contributions of all sources are carried
forward, one row for every (target, source); readouts of few targets are pulled back, one for every (target, position).
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.ablation import next_log2_prob
from decomp.core.backward import Backward, rows_of
from decomp.core.engine import bytes_held, propagate
from decomp.core.model import Model
from decomp.core.operating_point import OperatingPoint
from decomp.core.pairs import Pairs
from decomp.core.readout_rows import BiasShares
from decomp.measures.carried import CarriedScores
from decomp.measures.readout import LINEAR, FirstOrder, FirstOrderLogit, Readout
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores
from decomp.measures.strongest import strongest
from decomp.measures.units import sources_reached, summed_by_source

Recorded = tuple[Text, OperatingPoint]
Pulled = tuple[range, Float[Tensor, "N P D"]]
"""A group of targets, with their readouts turned into readouts of the embeddings."""
PULL_ADVANTAGE = 2
"""The factor by which the way back must have fewer rows to be chosen.

The way forward does more with each row: it skips inactive neurons, and has larger matrix products.
"""


def delta_lp(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield F(z[i]) − F(z[i] − U n[i, k]) for every target i and source k, where n[i, k] is the contribution.

    For the function `log2_prob` this is ΔLP in bits (Oh & Schuler 2023). If only the strongest sources are asked for,
    a screen finds them (see `screen`), and all others are taken away together.
    """
    if request.strongest is not None:
        return strongest(delta_lp, model, texts, request)
    return scored(model, texts, request, "delta_lp", additive=False)


def decomposed_logit(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield n[i, k] · u_y, the share of source k in the next token's logit; contrastive n[i, k] · (u_y − u_foil).

    With the rows `<bias>`, `<head_bias>` and `<remainder>`, a target's scores add up to the function.
    """
    return scored(model, texts, request, "decomposed_logit", additive=True)


def first_order(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield n[i, k] · ∇F at the hidden state of target i, which would be ΔLP if the function F were linear.

    It takes a single way back for each target, whatever the number of sources. It finds candidates for the strongest
    sources, but differs from ΔLP by whole bits where a source decides.
    """
    return scored(model, texts, request, "first_order", additive=False)


def screen(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield for each text the first-order scores that find its strongest sources: of the function, and of the logit.

    A source that decides a prediction may raise the next token and its competitors alike: the gradient of the (log)
    probability does not see that, although other tokens would win without the source. The logit has no competitors.
    Each text takes one forward pass and two ways back, whatever its number of sources.
    """
    for group in recorded_together(model, texts, request, bias=False):
        for text, point in group:
            yield [pulled_scores(model, text, point, request, name, additive=False) for name in SCREENS]


SCREENS = ("first_order", "first_order_logit")
READOUTS: dict[str, type[Readout]] = {"first_order": FirstOrder, "first_order_logit": FirstOrderLogit}
"""The class of readouts of a measure, where it is not `Readout`."""


def readout_of(text: Text, point: OperatingPoint, request: Request, model: Model, measure: str) -> Readout:
    """Return the function of one text's hidden states that a measure attributes."""
    return READOUTS.get(measure, Readout).of(text, point.hidden, request.function, model.unembedding())


def scored(
    model: Model, texts: Sequence[Text], request: Request, measure: str, additive: bool
) -> Iterator[list[Scores]]:
    """Yield the scores of each text, computed in the direction that costs less."""
    # A change of soft-capped logits is not linear in what is taken away; a share in them is refused where it is read.
    uncapped = additive or model.unembedding().softcap is None
    linear = measure in READOUTS or (request.function in LINEAR and uncapped)
    for group in recorded_together(model, texts, request, wants_bias(request, additive)):
        if linear and all(pull_pays(text, request) for text, _ in group):
            yield from ([pulled_scores(model, *each, request, measure, additive)] for each in group)
        else:
            yield from score_group(model, group, request, measure, additive)


def pull_pays(text: Text, request: Request) -> bool:
    """Return whether pulling the targets' readouts back takes far fewer rows than carrying contributions forward."""
    carried = len(Pairs(text.partition, sources_reached(text, request)))
    pulled = text.targets.stop if one_span(text, request) else rows_of(text.targets.start, text.targets.stop)
    return pulled * PULL_ADVANTAGE <= carried


def one_span(text: Text, request: Request) -> bool:
    """Return whether a text's targets are one span of tokens at its end, which are predicted together."""
    ends = text.words is None and text.targets.stop == len(text.ids) - 1
    return ends and len(text.targets) == request.span > 1


def pulled_scores(
    model: Model, text: Text, point: OperatingPoint, request: Request, measure: str, additive: bool
) -> Scores:
    """Return each source's share in a linear function of the targets: its embedding times the readout pulled back.

    The shares in the sum over a span are given to its first target, and zero to its others; they are added up later.
    """
    readout = readout_of(text, point, request, model, measure)
    backward = Backward(model.network(), point, "pull", request.memory)
    dtype = torch.promote_types(model.dtype, torch.float32)
    scores = point.hidden.new_zeros(len(point) - 1, len(point), dtype=dtype)
    bias = scores.new_zeros(len(scores)) if wants_bias(request, additive) else None
    pull = pull_together if one_span(text, request) else pull_each
    for targets, pulled in pull(backward, readout.linear, text.targets, request.memory, bias):
        shares = torch.einsum("npd,pd->np", pulled.to(dtype), point.embedding[: pulled.shape[1]].to(dtype))
        scores[targets.start : targets.stop, : pulled.shape[1]] = shares
    extra = {} if bias is None else {"<bias>": bias}
    if additive and readout.head_bias is not None:
        extra["<head_bias>"] = readout.head_bias
    sums, count = summed_by_source(scores, text.partition), text.partition.count
    return Scores(measure, text.targets, count, predicted_log2_prob(readout, text, request), sums, extra)


def wants_bias(request: Request, additive: bool) -> bool:
    """Return whether the bias is scored."""
    return additive or request.extra


def predicted_log2_prob(readout: Readout, text: Text, request: Request) -> Float[Tensor, "T-1"]:
    """Return the log2 probability of the next token of the targets that are scored, in bits, and zero of all others.

    The logits of all targets of a long text would cost as much as the way back.
    """
    scored_rows = slice(text.targets.start, text.targets.stop if request.span == 1 else None)
    found = next_log2_prob(readout.hidden[scored_rows], readout.next_ids[scored_rows], readout.unembedding)
    known = found.new_zeros(len(readout.hidden))
    known[scored_rows] = found
    return known


def pull_each(
    backward: Backward,
    linear: Float[Tensor, "N E"],
    targets: range,
    memory: int,
    bias: Float[Tensor, " N"] | None,
) -> Iterator[Pulled]:
    """Yield groups of targets with the readout of each target, pulled back; write its readout of the bias to `bias`."""
    for group in backward.groups(targets, memory - backward.bytes_held()):
        part = slice(group.start, group.stop)
        yield group, backward(linear[part], group, None if bias is None else BiasShares(bias[part]))


def pull_together(
    backward: Backward,
    linear: Float[Tensor, "N E"],
    targets: range,
    memory: int,
    bias: Float[Tensor, " N"] | None,
) -> Iterator[Pulled]:
    """Yield the first target of a span with the sum of all its targets' readouts, pulled back together."""
    last, first = range(targets.stop - 1, targets.stop), slice(targets.start, targets.start + 1)
    for _ in backward.groups(last, memory - backward.bytes_held()):  # ValueError where memory is too small
        states = linear[: targets.stop].clone()
        states[: targets.start] = 0
        yield targets[:1], backward.of_states(states, None if bias is None else BiasShares(bias[first]))[None]


def recorded_together(model: Model, texts: Sequence[Text], request: Request, bias: bool) -> Iterator[list[Recorded]]:
    """Yield texts with their operating points, as many at a time as fit into half of the memory."""
    group: list[Recorded] = []
    for text in texts:
        point = model.record(text.ids, rules=request.rules, bias=bias)
        if (
            group
            and bytes_held(model.folded(request.gate_rule), [point, *(p for _, p in group)], request.memory)
            > request.memory // 2
        ):
            yield group
            group = []
        group.append((text, point))
    yield group


def score_group(
    model: Model, group: list[Recorded], request: Request, measure: str, additive: bool
) -> Iterator[list[Scores]]:
    """Yield each text's scores from contributions: shares in the function (`additive`), or its change without them."""
    carried, with_rest = [], wants_bias(request, additive)
    for text, point in group:
        readout = readout_of(text, point, request, model, measure)
        carried.append(CarriedScores.empty(text, point, readout, request, additive, with_rest))
    texts, points = zip(*group, strict=True)
    length, partitions = max(sources_reached(text, request) for text in texts), [text.partition for text in texts]
    folded = model.folded(request.gate_rule)
    for chunk in propagate(folded, points, length, request.memory, partitions=partitions):
        carried[chunk.text].add(chunk)
    for each in carried:
        yield [each.result(measure, request)]
