"""Contrastive explanations: why a model predicts a target rather than a foil (Yin & Neubig 2022)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.ablation import next_log2_prob
from decomp.core.model import Model
from decomp.core.partition import Partition
from decomp.corpus.contrast_items import TokenisedItem
from decomp.corpus.cutting import Window
from decomp.corpus.sources import Sources, prompt_labels, text_of_tokens
from decomp.corpus.tokenizer import Tokenizer
from decomp.measures import Measure, Request, Text
from decomp.measures.contrast_request import MultiToken
from decomp.measures.result import Scores
from decomp.measures.windows import named_partition

COLUMNS = ("item", "phenomenon", "foil", "log2_odds", "prefers_target", "multi_token")
"""The columns of the table of contrasts that come before those of every table of scores."""


@dataclass(frozen=True)
class Contrast:
    """A contrast item with the texts to score: one text whose target has a foil, or one each for target and foil."""

    item: TokenisedItem
    """The contrast item as tokens."""
    texts: tuple[Text, ...]
    """The texts to score: one whose target has a foil, or one for the target and one for the foil."""
    context: int
    """The number of tokens, from the first, that the texts of target and foil share."""
    target: tuple[int, ...]
    """The ids of the target's tokens that are predicted."""
    foil: tuple[int, ...]
    """The ids of the foil's tokens that are predicted."""

    def on(self, device: torch.device) -> "Contrast":
        """Return the contrast with its texts on a device."""
        return replace(self, texts=tuple(text.on(device) for text in self.texts))

    def combine(self, scores: Sequence[Scores]) -> Scores:
        """Return the scores of one measure as those of a single prediction: with two texts, their difference."""
        return scores[0] if len(scores) == 1 else difference(*scores)

    def prompt_tokens(self, decomposition_length: int | None) -> range:
        """Return the positions of the prompt's tokens that are kept as sources of the first predicted token.

        The beginning-of-sequence token is not among them.
        """
        end, first = len(self.item.prompt), int(self.item.has_bos)
        oldest = first if decomposition_length is None else max(first, self.context - decomposition_length)
        return range(min(oldest, end), end)

    def tokens(self, tokenizer: Tokenizer) -> tuple[str, ...]:
        """Return the strings of the context's tokens, and last one string for all that is predicted."""
        context = tokenizer.convert_ids_to_tokens(self.texts[0].ids[: self.context].tolist())
        return (*context, joined(self.target, tokenizer))

    def source_texts(self, tokenizer: Tokenizer) -> tuple[str, ...]:
        """Return the name of each source of the context, or its text where it has none."""
        tokens, bos = self.tokens(tokenizer), int(self.item.has_bos)
        members: dict[int, list[int]] = {}
        for token, source in enumerate(self.texts[0].partition.labels[: self.context].tolist()):
            members.setdefault(source, []).append(token)
        names = self.texts[0].partition.names or ("",) * len(members)
        return tuple(names[source] or self.text_of(own, tokens, bos) for source, own in members.items())

    def text_of(self, own: Sequence[int], tokens: Sequence[str], bos: int) -> str:
        """Return the text of a source: as in the prompt, or as tokens for the beginning of sequence and later ones."""
        if own[0] < bos or own[-1] >= len(self.item.prompt):
            return "".join(tokens[token] for token in own)
        return text_of_tokens(self.item.item.prompt, [self.item.text_spans[token - bos] for token in own], own)

    def window(self) -> Window:
        """Return the window by which the item is entered in a table: its context, and one prediction."""
        has_bos = self.item.has_bos
        return Window(self.item.item.number, 0, 0, self.context + 1 - has_bos, 0, has_bos)


def joined(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """Return the strings of some tokens, joined."""
    return "".join(tokenizer.convert_ids_to_tokens(list(ids)))


def make_contrast(
    item: TokenisedItem,
    multi_token: MultiToken,
    device: torch.device | None = None,
    sources: Sources | None = None,
) -> Contrast | None:
    """Return a contrast item with the texts to score, by the way `multi_token`: `first` or `sum`.

    `sources` are those of the prompt's tokens, by default single tokens; all that follows the prompt is one source.
    None where `first` finds no tokens that differ, because target or foil is the beginning of the other.
    """

    def tensor(ids: Sequence[int]) -> Tensor:
        return torch.tensor(ids, dtype=torch.long, device=device)

    begin = len(item.prompt)
    if multi_token == "sum":
        texts = tuple(
            teacher_forced_text(tensor(item.prompt + word), item, sources) for word in (item.target, item.foil)
        )
        return Contrast(item, texts, begin, item.target, item.foil)
    pairs = enumerate(zip(item.target, item.foil, strict=False))
    same = next((place for place, (target, foil) in pairs if target != foil), None)
    if same is None:
        return None
    ids = tensor(item.prompt + item.target[: same + 1])
    foils = ids[1:].clone()
    foils[-1] = item.foil[same]
    partition = sources_of(item, sources, len(ids))
    text = Text(ids, range(len(ids) - 2, len(ids) - 1), foils, sources=partition, place=item.item.place)
    return Contrast(item, (text,), begin + same, item.target[same : same + 1], item.foil[same : same + 1])


def sources_of(item: TokenisedItem, sources: Sources | None, length: int) -> Partition | None:
    """Return the sources of a text that begins with an item's prompt; all tokens after the prompt are one source."""
    if sources is None or (isinstance(sources, str) and sources == "token"):
        return None
    found = prompt_labels(item, sources)
    later = (found.labels.max() + 1).expand(length - len(found.labels))
    return named_partition(replace(found, labels=torch.cat([found.labels, later])))


def teacher_forced_text(ids: Int[Tensor, " T"], item: TokenisedItem, sources: Sources | None = None) -> Text:
    """Return a text whose tokens after the prompt are predicted together, as if they were one word."""
    begin = len(item.prompt)
    words = torch.arange(len(ids), device=ids.device).clamp(max=begin)
    partition = sources_of(item, sources, len(ids))
    return Text(ids, range(begin - 1, len(ids) - 1), words=words, sources=partition, place=item.item.place)


def difference(target: Scores, foil: Scores) -> Scores:
    """Return the target's scores minus the foil's, of the sources that both have.

    The row `<own>`, the scores of their own earlier tokens, is called `<continuation>` in the difference.
    """
    extra = {
        "<continuation>" if name == "<own>" else name: values - foil.extra[name]
        for name, values in target.extra.items()
    }
    return replace(target, scores=target.scores - foil.scores, extra=extra)


def log2_odds(model: Model, contrast: Contrast) -> Float[Tensor, ""]:
    """Return log2 P(target) − log2 P(foil) in bits: above 0 where the model prefers the target."""
    log2_probs = []
    for text in contrast.texts:
        targets = slice(text.targets.start, text.targets.stop)
        hidden = model.record(text.ids).hidden[targets]
        words = [text.ids[1:]] if text.foils is None else [text.ids[1:], text.foils]
        log2_probs += [next_log2_prob(hidden, word[targets], model.unembedding()).sum() for word in words]
    target, foil = log2_probs
    return target - foil


def contrastive_scores(
    model: Model, contrasts: Sequence[Contrast], measure: Measure, request: Request
) -> Iterator[list[Scores]]:
    """Yield one measure's scores of each item, in order; the request comes from `contrastive_request`."""
    results = measure(model, [text for contrast in contrasts for text in contrast.texts], request)
    for contrast in contrasts:
        parts = [next(results) for _ in contrast.texts]
        yield [contrast.combine(scores) for scores in zip(*parts, strict=True)]


def scored(
    model: Model, contrasts: Sequence[Contrast], requests: Sequence[tuple[Measure, Request]], batch_size: int
) -> Iterator[tuple[Contrast, list[Scores]]]:
    """Yield each item with the scores of all measures; `batch_size` items are computed together."""
    for first in range(0, len(contrasts), batch_size):
        batch = contrasts[first : first + batch_size]
        asking = (contrastive_scores(model, batch, *request) for request in requests)
        for contrast, *results in zip(batch, *asking, strict=True):
            yield contrast, list(chain.from_iterable(results))


def prompt_scores(contrast: Contrast, scores: Scores) -> Float[np.ndarray, " tokens"]:
    """Return one measure's scores of the prompt's tokens that are kept as sources."""
    tokens = contrast.prompt_tokens(scores.decomposition_length)
    return scores.scores[scores.targets.start, tokens.start : tokens.stop].double().cpu().numpy()
