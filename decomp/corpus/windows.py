"""Tokens of articles, and the windows that models see of them."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from decomp.corpus.articles import Article
from decomp.corpus.words import Span, whitespace_words, without_white_space, words_of_tokens

Unit = Literal["token", "word"]
"""What is a target and a source: each token, or all tokens of a word together."""


@dataclass(frozen=True)
class Window:
    """One context's worth of an article's tokens, [start, stop), and which of them it predicts."""

    article: int
    number: int
    """In its article, from 0."""
    start: int
    stop: int
    first_scored: int
    """Earlier tokens are predicted in the window before, from more context."""
    has_bos: bool

    def position(self, index: int) -> int:
        """Position in the article of the window's token `index`; −1 for the beginning-of-sequence token."""
        return -1 if self.has_bos and index == 0 else self.start + index - self.has_bos

    @property
    def targets(self) -> range:
        """The targets (indices into the window's tokens) whose next token is scored here."""
        return range(max(0, self.first_scored - self.start + self.has_bos - 1), len(self) - 1)

    def __len__(self) -> int:
        """Tokens, the beginning-of-sequence token included."""
        return self.stop - self.start + self.has_bos

    def ids(self, article_ids: Int[Tensor, " A"], bos: int | None) -> Int[Tensor, " T"]:
        ids = article_ids[self.start : self.stop]
        return ids if bos is None else torch.cat([ids.new_tensor([bos]), ids])


def cut_windows(
    article: int,
    length: int,
    positions: int,
    stride: int | None = None,
    has_bos: bool = True,
    *,
    ends: Sequence[int] | None = None,
    span: int = 1,
) -> Iterator[Window]:
    """Windows of at most `positions` tokens (beginning-of-sequence included), each starting `stride` after
    the one before (half of `positions` by default), until the article's `length` tokens are covered.

    Every token is scored once, in the first window that holds it. With `ends` (the token after each unit),
    windows end where a unit does; with `span`, a unit is scored in the first window that holds it and the
    `span` − 1 units after it. ValueError for a stride that would skip tokens, or a unit that fits into no window.
    """
    capacity = positions - has_bos
    stride = max(1, positions // 2) if stride is None else stride
    ends = range(1, length + 1) if ends is None else ends
    if not 1 <= stride <= capacity:
        raise ValueError(f"the stride must be from 1 to {capacity} (the tokens of one window), not {stride}")
    start = number = scored = stop = 0
    while stop < length:
        units = bisect_right(ends, start + capacity)
        fitting = ends[units - span] if units >= span else 0
        if fitting <= scored and units < len(ends):
            latest = max(0, scored - (not has_bos))
            if start == latest:
                raise ValueError(
                    f"token {scored} of article {article} begins a word or span of more tokens than a window has "
                    f"({capacity}): take a shorter span, or single tokens"
                )
            start = latest
            continue
        stop = ends[units - 1]
        yield Window(article, number, start, stop, scored, has_bos)
        start, number, scored = min(start + stride, fitting - (not has_bos)), number + 1, fitting


class Place(NamedTuple):
    """Where a token (or word) stands in its article: nowhere for the beginning-of-sequence token, word −1."""

    word: int = -1
    char_start: int | None = None
    char_end: int | None = None
    """The character after the last. Tokens that share a character's bytes share its place."""


@dataclass(frozen=True)
class TokenisedWindow:
    window: Window
    ids: Int[Tensor, " T"]
    tokens: tuple[str, ...]
    """The vocabulary's own strings (byte-level: `Ġthe`)."""
    places: tuple[Place, ...]
    article: "TokenisedArticle" = field(repr=False)

    def cut(self, window: Window) -> "TokenisedWindow":
        """The same up to where `window` stops."""
        n = len(window)
        return replace(self, window=window, ids=self.ids[:n], tokens=self.tokens[:n], places=self.places[:n])

    def word_of_tokens(self) -> Int[Tensor, " T"]:
        """Per token its word, in the numbering of `in_words`."""
        words = torch.tensor([place.word for place in self.places])
        has_bos = self.window.has_bos
        return torch.where(words < 0, 0, words - self.places[has_bos].word + has_bos)

    def in_words(self) -> "TokenisedWindow":
        """The same with each word as one token; `ids` stay those of the tokens."""
        has_bos, window = self.window.has_bos, self.window
        first, last = self.places[has_bos].word, self.places[-1].word
        scored = self.places[window.first_scored - window.start + has_bos].word
        words = self.article.words[first : last + 1]
        return replace(
            self,
            window=replace(window, start=first, stop=last + 1, first_scored=scored),
            tokens=(*self.tokens[:has_bos], *(self.article.text[start:stop] for start, stop in words)),
            places=(*self.places[:has_bos], *(Place(first + n, *span) for n, span in enumerate(words))),
        )


@dataclass(frozen=True)
class TokenisedArticle:
    number: int
    id: str
    text: str
    ids: Int[Tensor, " A"]
    spans: Sequence[Span]
    """The characters of each token."""
    places: tuple[Place, ...]
    """Of each token."""
    words: Sequence[Span]

    def word_ends(self) -> list[int]:
        """The token after each word."""
        return [stop for stop in range(1, len(self.places) + 1) if self.ends_word(stop)]

    def ends_word(self, stop: int) -> bool:
        return stop == len(self.places) or self.places[stop - 1].word < self.places[stop].word

    def window(self, window: Window, bos: int | None, tokenizer: Any) -> TokenisedWindow:
        ids = window.ids(self.ids, bos)
        places = self.places[window.start : window.stop]
        tokens = tuple(tokenizer.convert_ids_to_tokens(ids.tolist()))
        return TokenisedWindow(window, ids, tokens, places if bos is None else (Place(), *places), self)


def beginning_of_sequence(tokenizer: Any, config: Any) -> int:
    """ValueError where neither tokenizer nor config has such a token."""
    for owner in (tokenizer, config):
        token = getattr(owner, "bos_token_id", None)
        if token is not None:
            return int(token)
    raise ValueError("neither tokenizer nor config has a beginning-of-sequence token: use --no-bos (bos=False)")


def tokenise(number: int, article: Article, tokenizer: Any, words: Sequence[Span] | None = None) -> TokenisedArticle:
    """`words`: their characters, by default what stands between white space. ValueError where one has no token."""
    encoded = tokenizer(article.text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    ids = torch.tensor(encoded["input_ids"], dtype=torch.long)
    return place_tokens(number, article, ids, encoded["offset_mapping"], words)


def place_tokens(
    number: int, article: Article, ids: Int[Tensor, " A"], spans: Sequence[Span], words: Sequence[Span] | None = None
) -> TokenisedArticle:
    """Tokens whose characters are known, and the words that they are of."""
    text = article.text
    spans = [without_white_space(text, span) for span in spans]
    words = (whitespace_words(text) if words is None else words) or [(0, len(text))]
    owners = words_of_tokens(text, spans, words, f"article {article.id or number}")
    places = tuple(Place(word, *span) for word, span in zip(owners, spans, strict=True))
    return TokenisedArticle(number, article.id, text, ids, spans, places, words)


def windows_of(
    articles: Sequence[Article | str],
    tokenizer: Any,
    config: Any,
    *,
    positions: int | None = None,
    stride: int | None = None,
    bos: bool = True,
    words: Sequence[Sequence[Span]] | None = None,
    unit: Unit = "token",
    span: int = 1,
) -> list[TokenisedWindow]:
    """Tokenise articles and cut them into windows of the model's positions (or fewer).

    `words`: the characters of each article's words, by default what stands between white space. With the
    unit `word`, no window ends within a word; with a `span`, each window holds the whole of the spans it scores.
    """
    positions = int(config.max_position_embeddings) if positions is None else positions
    bos_id = beginning_of_sequence(tokenizer, config) if bos else None
    result = []
    for number, given in enumerate(articles):
        article = Article(given) if isinstance(given, str) else given
        tokens = tokenise(number, article, tokenizer, None if words is None else words[number])
        ends = tokens.word_ends() if unit == "word" else None
        windows = cut_windows(number, len(tokens.ids), positions, stride, bos, ends=ends, span=span)
        result += [tokens.window(window, bos_id, tokenizer) for window in windows]
    return result


def continued(tokenised: TokenisedWindow, new_ids: Int[Tensor, " new"], tokenizer: Any) -> TokenisedWindow:
    """A window that holds all of its article, with more tokens, which alone are predicted."""
    window, article = tokenised.window, tokenised.article
    beginnings = [tokenizer.decode(new_ids[:n], clean_up_tokenization_spaces=False) for n in range(len(new_ids) + 1)]
    # The first bytes of a character are shown as one, which the whole character then replaces.
    spans = [(len(before.rstrip("\ufffd")), len(after)) for before, after in pairwise(beginnings)]
    longer = place_tokens(
        article.number,
        Article(article.text + beginnings[-1], article.id),
        torch.cat([article.ids, new_ids]),
        [*article.spans, *((len(article.text) + start, len(article.text) + stop) for start, stop in spans)],
    )
    window = replace(window, stop=window.stop + len(new_ids), first_scored=window.stop)
    return longer.window(window, int(tokenised.ids[0]) if window.has_bos else None, tokenizer)


def only_target(windows: list[TokenisedWindow], position: int | str) -> list[TokenisedWindow]:
    """Windows that predict nothing but the token at one position of its article (or the `last`), cut after it.

    ValueError where no article has a predicted token there.
    """
    lengths: dict[int, int] = {}
    for tokenised in windows:
        lengths[tokenised.window.article] = tokenised.window.stop
    chosen = []
    for tokenised in windows:
        window = tokenised.window
        wanted = lengths[window.article] - 1 if isinstance(position, str) else position
        cut = replace(window, first_scored=wanted, stop=wanted + 1)
        if window.first_scored <= wanted < window.stop and cut.targets:
            chosen.append(tokenised.cut(cut))
    if not chosen:
        raise ValueError(
            f"no article has a predicted token at {position}: the longest has {max(lengths.values(), default=0)} tokens"
        )
    return chosen
