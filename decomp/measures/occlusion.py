"""Occlusion: what a prediction loses when a source is removed from the text (Li et al. 2016; Yin & Neubig 2022)."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decomp.core.ablation import Unembedding, next_log2_prob
from decomp.core.model import Model
from decomp.core.network import Network
from decomp.measures.functions import AttributedFunction, find_function
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores
from decomp.measures.units import kept_count, oldest_kept

HIDDEN = ("mask", "key")
"""The replacements that hide a source from attention; others put a token in its place."""
WORKING_SET = 2**26
"""The bytes of a batch beyond which fresh pages of memory cost more time than larger matrix products save."""

Losses = tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"], Float[Tensor, " pairs"]]
"""The targets and the sources of some pairs, and what each target loses without the source."""


def hidden_without(
    model: Model, ids: Int[Tensor, " T"], removed: Bool[Tensor, "B T"], replacement: str | int
) -> tuple[Float[Tensor, "B T E"], Bool[Tensor, "B T"]]:
    """Return the hidden state that predicts after each text without its removed tokens, and which texts are empty.

    With a token id as `replacement`, it is that of the last position, computed with this token in place of removed
    ones. With `mask` and `key`, the keys of removed tokens are hidden from all other positions in every layer. `mask`
    is a forward pass over the shortened text with its original positions: where the last token is removed, the last
    remaining position predicts. With `key` the last position predicts even where it is removed: its residual stream
    remains, as behind an attention mask of transformers (Yin & Neubig 2022).
    """
    batch = ids.expand(removed.shape)
    if not isinstance(replacement, str):
        hidden = model.hidden_without(batch.masked_fill(removed, replacement))
        return hidden, torch.zeros_like(removed)
    assert replacement in HIDDEN, "a token is given by its id"
    hidden = model.hidden_without(batch, removed)
    if replacement == "key":
        return hidden, torch.zeros_like(removed)
    places = torch.arange(len(ids), device=ids.device).where(~removed, -1)
    last = places.cummax(1).values
    return hidden.take_along_dim(last.clamp(min=0)[..., None], 1), last < 0


def function_values(
    hidden: Float[Tensor, "N E"],
    empty: Bool[Tensor, " N"],
    tokens: Int[Tensor, " N"],
    foils: Int[Tensor, " N"] | None,
    unembedding: Unembedding,
    function: AttributedFunction,
    memory: int,
) -> Float[Tensor, " N"]:
    """Return the attributed function of each prediction; an empty context predicts all tokens alike."""
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    step = max(1, memory // (4 * len(unembedding.weight) * dtype.itemsize))
    values = hidden.new_empty(len(hidden), dtype=dtype)
    for first in range(0, len(hidden), step):
        rows = slice(first, first + step)
        logits = unembedding.logits(hidden[rows]).to(dtype).masked_fill_(empty[rows, None], 0)
        values[rows] = function(logits, tokens[rows], None if foils is None else foils[rows])
    return values


def texts_at_once(network: Network, length: int, itemsize: int, memory: int) -> int:
    """Return about how many texts of a length fit into one eager forward pass within `memory` bytes; at least one."""
    row = 4 * network.heads * length + 2 * length + 3 * network.neurons + 10 * network.hidden
    each = itemsize * length * row
    return max(1, min(memory, WORKING_SET) // each)


def scored_sources(text: Text, oldest: Int[Tensor, " T"]) -> range:
    """Return the range of sources that count for at least one of the text's targets."""
    return range(int(oldest[text.targets.start]), int(text.partition.begun[text.targets.stop - 1]))


@torch.no_grad()
def occlusion(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield F(x) − F(x without k) for each source k of each target (Li et al. 2016; Yin & Neubig 2022).

    All tokens of a source are hidden or replaced at once: a word, a sentence, a segment. The first token of a text has
    no context left without itself; it is compared with the uniform distribution.
    """
    for text in texts:
        yield [occlusion_of(model, text, request)]


def occlusion_of(model: Model, text: Text, request: Request) -> Scores:
    """Return the scores of one text; as many sources are removed at a time, each alone, as fit into the memory."""
    (hidden,) = model.hidden_without(text.ids[None])
    log2_prob = next_log2_prob(hidden[:-1], text.ids[1:], model.unembedding())
    scores = log2_prob.new_zeros(len(text.ids) - 1, text.partition.count)
    if text.targets:
        for targets, sources, lost in losses(model, text, hidden, request):
            scores[targets, sources] = lost.to(scores.dtype)
    return Scores("occlusion", text.targets, kept_count(text, request), log2_prob, scores, {})


def losses(model: Model, text: Text, hidden: Float[Tensor, "T E"], request: Request) -> Iterator[Losses]:
    """Yield what targets lose without sources, as many sources at a time as fit into the memory."""
    function, unembedding = find_function(request.function or "log2_prob"), model.unembedding()
    ids, next_ids = text.ids[: text.targets.stop], text.ids[1 : text.targets.stop + 1]
    foils = None if text.foils is None else text.foils[: len(next_ids)]

    def values(hidden: Tensor, empty: Tensor, targets: Tensor) -> Tensor:
        chosen = None if foils is None else foils[targets]
        return function_values(hidden, empty, next_ids[targets], chosen, unembedding, function, request.memory // 2)

    oldest, places = oldest_kept(text, request).to(model.device), torch.arange(len(ids), device=ids.device)
    plain = values(hidden[: len(ids)], torch.zeros_like(places, dtype=torch.bool), places)
    every = scored_sources(text, oldest)
    step = texts_at_once(model.network(), len(ids), hidden.element_size(), request.memory // 2)
    labels, begun = (each[: len(ids)].to(ids.device) for each in (text.partition.labels, text.partition.begun))
    for first in range(every.start, every.stop, step):
        sources = torch.arange(first, min(first + step, every.stop), device=ids.device)[:, None]
        without, empty = hidden_without(model, ids, labels == sources, request.occlusion.replacement)
        kept = (sources < begun) & (places >= text.targets.start) & (sources >= oldest[: len(ids)])
        source, target = kept.nonzero().unbind(1)
        yield target, sources[source, 0], plain[target] - values(without[kept], empty[kept], target)
