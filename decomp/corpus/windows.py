"""Windows of tokenised articles: the sequences of tokens that a model is given."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from decomp.corpus.article import Article
from decomp.corpus.cutting import Window, cut_windows
from decomp.corpus.text_spans import TextSpan, TextSpans
from decomp.corpus.tokenizer import Tokenizer
from decomp.corpus.tokens import TokenisedArticle, beginning_of_sequence, tokenise, with_tokens
from decomp.corpus.words import spans_of

Unit = Literal["token", "word"]
"""The unit of targets and sources: single tokens, or words, whose tokens are taken together."""


@dataclass(frozen=True)
class TokenisedWindow:
    """A window of an article with its token ids, their strings, and their spans of text."""

    window: Window
    """The window's place in its article, and which tokens it predicts."""
    ids: Int[Tensor, " T"]
    """The token ids."""
    tokens: tuple[str, ...]
    """The strings by which the vocabulary names the tokens (for byte-level ones `Ġthe`)."""
    text_spans: Sequence[TextSpan]
    """The word and the span of characters of each unit."""
    article: TokenisedArticle = field(repr=False)
    """The tokenised article that the window is of."""
    span: int = 1
    """The number of units (tokens or words) that are predicted together, by the chain rule."""

    def cut(self, window: Window) -> "TokenisedWindow":
        """Return this window cut to the first tokens, as many as `window` has, and with `window` as its description."""
        n = len(window)
        return replace(self, window=window, ids=self.ids[:n], tokens=self.tokens[:n], text_spans=self.text_spans[:n])

    def word_of_tokens(self) -> Int[Tensor, " T"]:
        """Return the index of the word that each token is of, among the units of `in_words()`."""
        words = torch.tensor([span.word for span in self.text_spans])
        has_bos = self.window.has_bos
        return torch.where(words < 0, 0, words - self.text_spans[has_bos].word + has_bos)

    def in_words(self) -> "TokenisedWindow":
        """Return this window with words as its units in place of tokens; `ids` remain those of the tokens."""
        has_bos, window = self.window.has_bos, self.window
        first, last = self.text_spans[has_bos].word, self.text_spans[-1].word
        scored = self.text_spans[window.first_scored - window.start + has_bos].word
        words = self.article.words[first : last + 1]
        spans = TextSpans(np.column_stack([np.arange(first, last + 1, dtype=np.int32), words]))
        return replace(
            self,
            window=replace(window, start=first, stop=last + 1, first_scored=scored),
            tokens=(*self.tokens[:has_bos], *(self.article.text[start:stop] for start, stop in words.tolist())),
            text_spans=spans.with_bos() if has_bos else spans,
        )


def windows_of(
    articles: Sequence[Article | str],
    tokenizer: Tokenizer,
    config: Any,
    *,
    positions: int | None = None,
    stride: int | None = None,
    bos: bool = True,
    unit: Unit = "token",
    span: int = 1,
) -> list[TokenisedWindow]:
    """Tokenise articles and cut them into windows that fit into the model's positions (or into `positions`).

    Each window starts `stride` tokens after the one before (half of the positions by default), begins with the
    beginning-of-sequence token unless `bos` is false, and predicts the tokens that no window before predicts. With the
    unit `word`, no window ends within a word; with a `span`, each window holds the whole of the spans it predicts.
    ValueError for a stride that would skip tokens, and for a word or span that fits into no window.

        >>> import decomp
        >>> model, tokenizer = decomp.load_model("demo-opt")
        >>> (window,) = windows_of(["The cat sat."], tokenizer, model.config)
        >>> window.tokens, window.window.targets
        (('</s>', 'The', 'Ġcat', 'Ġsat', '.'), range(0, 4))
    """
    positions = int(config.max_position_embeddings) if positions is None else positions
    bos_id = beginning_of_sequence(tokenizer, config) if bos else None
    result: list[TokenisedWindow] = []
    for number, given in enumerate(articles):
        article = Article(given) if isinstance(given, str) else given
        tokens = tokenise(number, article, tokenizer)
        ends = tokens.word_ends() if unit == "word" else None
        windows = cut_windows(number, len(tokens.ids), positions, stride, bos, ends=ends, span=span)
        result += (replace(w, span=span) for w in tokenised_windows(tokens, windows, bos_id, tokenizer))
    return result


def tokenised_windows(
    article: TokenisedArticle, windows: Iterable[Window], bos: int | None, tokenizer: Tokenizer
) -> Iterator[TokenisedWindow]:
    """Yield windows of an article with their tokens, the token `bos` first unless it is None.

    All windows share the strings of tokens.
    """
    known = [*({bos} - {None}), *article.ids.unique().tolist()]
    names = dict(zip(known, tokenizer.convert_ids_to_tokens(known), strict=True))
    for window in windows:
        ids = window.ids(article.ids, bos)
        spans = article.text_spans[window.start : window.stop]
        tokens = tuple(names[token] for token in ids.tolist())
        yield TokenisedWindow(window, ids, tokens, spans if bos is None else spans.with_bos(), article)


def continued(tokenised: TokenisedWindow, new_ids: Int[Tensor, " new"], tokenizer: Tokenizer) -> TokenisedWindow:
    """Return a window that holds a whole article, lengthened by `new_ids`, which alone are predicted."""
    window, article = tokenised.window, tokenised.article
    beginnings = [tokenizer.decode(new_ids[:n], clean_up_tokenization_spaces=False) for n in range(len(new_ids) + 1)]
    # The first bytes of a character are shown as one, which the whole character then replaces.
    spans = [(len(before.rstrip("\ufffd")), len(after)) for before, after in pairwise(beginnings)]
    longer = with_tokens(
        article.number,
        Article(article.text + beginnings[-1], article.id, article.parts),
        torch.cat([article.ids, new_ids]),
        np.concatenate([article.text_spans.rows[:, 1:], spans_of(spans) + np.int32(len(article.text))]),
    )
    window = replace(window, stop=window.stop + len(new_ids), first_scored=window.stop)
    (result,) = tokenised_windows(longer, [window], int(tokenised.ids[0]) if window.has_bos else None, tokenizer)
    return result
