"""Columns in front of the long table's own: words and characters in the article, facts about predictions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decomp.core.model import Model
from decomp.core.partition import Partition
from decomp.corpus.sources import Sources, source_text
from decomp.corpus.text_spans import TextSpan
from decomp.corpus.windows import TokenisedWindow, Unit
from decomp.corpus.word_lists import of_kind
from decomp.measures.result import Scores
from decomp.measures.surprisal import boundary_correction, next_entropy, next_log2_mass
from decomp.measures.windows import partition_of
from decomp.tables.blocks import Block, Builder, Column, block_of, constant
from decomp.tables.columns import COLUMNS, SOURCE_LENGTH, Groups, array, scores_block

SPAN_COLUMNS = (*TextSpan._fields, "source_word")


@dataclass(frozen=True)
class LeadingColumns:
    """The columns in front that a table has; a unit is a token or word that is predicted."""

    unit: Unit = "token"
    spans: bool = False
    """Whether there is a column `span`, the number of units that are predicted together."""
    article_ids: bool = False
    entropy: bool = False
    """Whether there is a column of the entropy, in bits, of the predictions of each unit's first token."""
    boundaries: Bool[Tensor, " V"] | None = None
    """True for each token that can't continue a word, to correct log2 probabilities of words; None for no such column.
    """
    sources: Sources | None = None
    """The groups of tokens that are sources; None where sources are the units."""
    annotations: Mapping[str, type] = field(default_factory=dict)
    """Columns of a list of words, with the types of their values."""

    @property
    def has_groups(self) -> bool:
        """Return whether the sources are groups, not the predicted units."""
        return self.sources is not None and not (isinstance(self.sources, str) and self.sources == self.unit)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the table: those in front, then the long table's own."""
        has = {
            "article_id": self.article_ids,
            "span": self.spans,
            **dict.fromkeys((*TextSpan._fields, *self.annotations), True),
            "entropy": self.entropy,
            "corrected_log2_prob": self.boundaries is not None,
            "source_word": True,
            SOURCE_LENGTH: self.has_groups,
        }
        return (*(name for name, is_there in has.items() if is_there), *COLUMNS)

    def blocks(self, model: Model, window: TokenisedWindow, results: Iterable[Scores]) -> Iterator[Block]:
        """Yield the rows of one window, a block for each result."""
        units = window.in_words() if self.unit == "word" else window
        more, count = self.from_distributions(model, window), len(units.tokens)
        known: dict[str, Column] = {}
        if self.article_ids:
            known["article_id"] = constant(window.article.id, count)
        if self.spans:
            known["span"] = constant(window.span, count)
        known |= span_columns(units.text_spans)
        known |= {name: self.annotation(name, kind, units) for name, kind in self.annotations.items()}
        if self.entropy:
            known["entropy"] = unit_column(more["entropy"], count)
        groups = groups_of(window, partition_of(window, self.sources, self.unit), self.unit)
        for result in results:
            if self.boundaries is not None:
                corrected = result.log2_prob + more["correction"][: len(result.log2_prob)]
                known["corrected_log2_prob"] = unit_column(corrected, count)
            yield scores_block(result, units.window, units.tokens, known, {"source_word": known["word"]}, groups)

    def annotation(self, name: str, kind: type, units: TokenisedWindow) -> Column:
        """Return a column of the list of words, with a value for each unit."""
        values = units.article.annotations.get(name)
        builder = Builder(kind)
        words = [span.word for span in units.text_spans]
        builder.add([None if values is None or word < 0 else of_kind(values[word], kind) for word in words])
        return builder.column()

    @torch.no_grad()
    def from_distributions(self, model: Model, window: TokenisedWindow) -> dict[str, Float[Tensor, " targets"]]:
        """Return entropy and correction of log2 probability of every predicted unit, in bits, from one more pass.

        Each is there if its column is.
        """
        if not self.entropy and self.boundaries is None:
            return {}
        hidden, unembedding = model.record(window.ids.to(model.device)).hidden, model.unembedding()
        words = window.word_of_tokens() if self.unit == "word" else torch.arange(len(window.ids))
        words = words.to(hidden.device)
        before = torch.searchsorted(words, torch.arange(1, int(words[-1]) + 1, device=words.device)) - 1
        found = {}
        if self.entropy:
            found["entropy"] = next_entropy(hidden[before], unembedding)
        if self.boundaries is not None:
            boundary = next_log2_mass(hidden, unembedding, self.boundaries.to(hidden.device))
            correction = boundary_correction(boundary, words, int(window.window.has_bos))[1:]
            found["correction"] = correction.unfold(0, min(window.span, len(correction)), 1).sum(-1)
        return found


def groups_of(window: TokenisedWindow, partition: Partition | None, unit: Unit = "token") -> Groups | None:
    """Return the sources of a window as columns of a table; None where the sources are the predicted units."""
    if partition is None:
        return None
    begins = torch.tensor(partition.begins)
    first = window.word_of_tokens()[begins] if unit == "word" else begins
    members: list[list[int]] = [[] for _ in partition.begins]
    for token, source in enumerate(partition.labels.tolist()):
        members[source].append(token)
    texts = partition.names or tuple(source_text(window, tokens) for tokens in members)
    return Groups(first.numpy(), texts, np.array([len(tokens) for tokens in members]))


def span_columns(text_spans: Sequence[tuple[int | None, ...]]) -> dict[str, Column]:
    """Return the word and characters of each token as columns, missing for tokens that stand for no text."""
    return block_of(TextSpan._fields, text_spans)


def unit_column(values: Float[Tensor, " targets"], count: int) -> Float[np.ndarray, " T"]:
    """Return numbers of the predicted units as a column over all units: the first unit is never predicted."""
    given = array(values)
    column = np.full(count, np.nan, given.dtype)
    column[1 : 1 + len(given)] = given
    return column
