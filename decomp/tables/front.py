"""What stands in front of the long table's columns: places in the article, and what else a prediction is asked for."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decomp.corpus.places import Place
from decomp.corpus.windows import TokenisedWindow, Unit
from decomp.measures.result import Scores
from decomp.measures.surprisal import boundary_correction, next_entropy, next_log2_mass
from decomp.tables.columns import COLUMNS, Row, rows, significant

PLACE_COLUMNS = (*Place._fields, "source_word")


@dataclass(frozen=True)
class Front:
    """Columns in front, and the rows that have them."""

    unit: Unit = "token"
    span: int = 1
    article_ids: bool = False
    entropy: bool = False
    """Of the distribution that the first token of the unit or span is predicted from, in bits."""
    boundaries: Bool[Tensor, " V"] | None = None
    """Tokens that can't go on a word: corrects the log2 probabilities of words for them."""

    @property
    def columns(self) -> tuple[str, ...]:
        asked = {
            "article_id": self.article_ids,
            "span": self.span > 1,
            **dict.fromkeys(Place._fields, True),
            "entropy": self.entropy,
            "corrected_log2_prob": self.boundaries is not None,
            "source_word": True,
        }
        return (*(name for name, is_asked in asked.items() if is_asked), *COLUMNS)

    def rows(self, model: Any, window: TokenisedWindow, results: Iterable[Scores]) -> Iterator[Row]:
        """All rows of one window, those of one result after the other."""
        units = window.in_words() if self.unit == "word" else window
        texts = ((window.article.id,) if self.article_ids else ()) + ((self.span,) if self.span > 1 else ())
        asked = self.asked(model, window)
        for result in results:
            values = [asked["entropy"]] if self.entropy else []
            if self.boundaries is not None:
                values.append(result.log2_prob + asked["correction"][: len(result.log2_prob)])
            columns = [[None, *significant(column)] for column in values]
            front = [(*texts, *place, *more) for place, *more in zip(units.places, *columns, strict=False)]
            yield from rows(result, units.window, units.tokens, front, [(place.word,) for place in units.places])

    @torch.no_grad()
    def asked(self, model: Any, window: TokenisedWindow) -> dict[str, Float[Tensor, " targets"]]:
        """Per predicted unit, from one more pass of the model: entropy, and what corrects the log2 probability."""
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
            asked["correction"] = correction.unfold(0, min(self.span, len(correction)), 1).sum(-1)
        return asked
