"""What stands in front of the long table's columns: places in the article, and what else a prediction is asked for."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decomp.core.model import Model
from decomp.corpus.places import Place
from decomp.corpus.windows import TokenisedWindow, Unit
from decomp.measures.result import Scores
from decomp.measures.surprisal import boundary_correction, next_entropy, next_log2_mass
from decomp.tables.blocks import Block, Column, block_of, constant
from decomp.tables.columns import COLUMNS, array, scores_block

PLACE_COLUMNS = (*Place._fields, "source_word")


@dataclass(frozen=True)
class Front:
    """Columns in front, and the rows that have them."""

    unit: Unit = "token"
    spans: bool = False
    """Whether there is the number of units that are predicted together."""
    article_ids: bool = False
    entropy: bool = False
    """Whether there is the entropy, in bits, of the distribution that a unit's first token is predicted from."""
    boundaries: Bool[Tensor, " V"] | None = None
    """Tokens that can't go on a word: corrects the log2 probabilities of words for them."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the table: those in front, then the long table's own."""
        asked = {
            "article_id": self.article_ids,
            "span": self.spans,
            **dict.fromkeys(Place._fields, True),
            "entropy": self.entropy,
            "corrected_log2_prob": self.boundaries is not None,
            "source_word": True,
        }
        return (*(name for name, is_asked in asked.items() if is_asked), *COLUMNS)

    def blocks(self, model: Model, window: TokenisedWindow, results: Iterable[Scores]) -> Iterator[Block]:
        """Yield the rows of one window, those of one result after the other."""
        units = window.in_words() if self.unit == "word" else window
        asked, count = self.asked(model, window), len(units.tokens)
        known: dict[str, Column] = {}
        if self.article_ids:
            known["article_id"] = constant(window.article.id, count)
        if self.spans:
            known["span"] = constant(window.span, count)
        known |= place_columns(units.places)
        if self.entropy:
            known["entropy"] = of_predicted(asked["entropy"], count)
        for result in results:
            if self.boundaries is not None:
                corrected = result.log2_prob + asked["correction"][: len(result.log2_prob)]
                known["corrected_log2_prob"] = of_predicted(corrected, count)
            yield scores_block(result, units.window, units.tokens, known, {"source_word": known["word"]})

    @torch.no_grad()
    def asked(self, model: Model, window: TokenisedWindow) -> dict[str, Float[Tensor, " targets"]]:
        """Return the entropy of every predicted unit, and what corrects its log2 probability, from one more pass."""
        if not self.entropy and self.boundaries is None:
            return {}
        hidden, unembedding = model.record(window.ids.to(model.device)).hidden, model.unembedding()
        words = window.word_of_tokens() if self.unit == "word" else torch.arange(len(window.ids))
        words = words.to(hidden.device)
        before = torch.searchsorted(words, torch.arange(1, int(words[-1]) + 1, device=words.device)) - 1
        asked = {}
        if self.entropy:
            asked["entropy"] = next_entropy(hidden[before], unembedding)
        if self.boundaries is not None:
            boundary = next_log2_mass(hidden, unembedding, self.boundaries.to(hidden.device))
            correction = boundary_correction(boundary, words, int(window.window.has_bos))[1:]
            asked["correction"] = correction.unfold(0, min(window.span, len(correction)), 1).sum(-1)
        return asked


def place_columns(places: Sequence[tuple[int | None, ...]]) -> dict[str, Column]:
    """Return word and characters of each token, missing where it has no place."""
    return block_of(Place._fields, places)


def of_predicted(values: Float[Tensor, " targets"], count: int) -> Float[np.ndarray, " T"]:
    """Return the numbers of predicted units as a column of all units: the first is predicted from none."""
    given = array(values)
    column = np.full(count, np.nan, given.dtype)
    column[1 : 1 + len(given)] = given
    return column
