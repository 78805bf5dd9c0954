"""The tokens of an article: their ids, and where they stand in its text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Int32
from torch import Tensor

from decomp.corpus.article import Article
from decomp.corpus.parts import NO_PARTS, Parts
from decomp.corpus.places import Places
from decomp.corpus.tokenizer import Tokenizer
from decomp.corpus.words import Span, spans_of, trimmed, whitespace_words, words_of_tokens

PIECE = 2**17
"""Characters of a long text that are tokenised at once: tokenizers need some hundred bytes for each."""
OVERLAP = 2**11
"""Characters that neighbouring pieces share."""
AT_ONCE = 64
"""Tokens that are read as text with one another, where they are no tokenizer's own."""
AGREEMENT = 8
"""Tokens on either side of a seam on which both pieces must agree."""


class Encoded(NamedTuple):
    """Tokens of a text, and the characters of each."""

    ids: Int32[np.ndarray, " A"]
    spans: Int32[np.ndarray, "A 2"]


@dataclass(frozen=True)
class TokenisedArticle:
    """An article as tokens."""

    number: int
    """Its number in the corpus, from 0."""
    id: str
    text: str
    ids: Int[Tensor, " A"]
    places: Places
    """Word and characters of each token."""
    words: Int32[np.ndarray, "words 2"]
    """The characters of each word."""
    parts: Parts = NO_PARTS
    """Sentences, lines, paragraphs and segments, as far as the text itself does not say where they are."""
    annotations: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """By column, what is known of each word."""

    def word_ends(self) -> list[int]:
        """Return the token after each word."""
        words = self.places.rows[:, 0]
        return [*(np.flatnonzero(np.diff(words)) + 1).tolist(), len(words)] if len(words) else []


def beginning_of_sequence(tokenizer: Tokenizer, config: Any) -> int:
    """Return the token that sequences begin with. ValueError where neither tokenizer nor config has one."""
    for owner in (tokenizer, config):
        token = getattr(owner, "bos_token_id", None)
        if token is not None:
            return int(token)
    raise ValueError("neither tokenizer nor config has a beginning-of-sequence token: use --no-bos (bos=False)")


def tokenise(number: int, article: Article, tokenizer: Tokenizer) -> TokenisedArticle:
    """Tokenise an article, a long one in pieces, so that memory stays small; one that comes as tokens keeps these.

    ValueError where a word has no token, and for tokens that are not the tokenizer's.
    """
    if article.ids is None:
        encoded = encode(article.text, tokenizer)
    else:
        text, encoded = text_of_ids(article.ids, tokenizer, f"article {article.id or number}")
        article = replace(article, text=text)
    return place_tokens(number, article, torch.from_numpy(encoded.ids.astype(np.int64)), encoded.spans)


def text_of_ids(ids: Sequence[int], tokenizer: Tokenizer, what: str) -> tuple[str, Encoded]:
    """Return the text of tokens, and the characters of each; a beginning-of-sequence token in front is left out.

    ValueError for a token that the tokenizer has not; `what` names the article.
    """
    own = np.array(ids[1:] if ids and ids[0] == getattr(tokenizer, "bos_token_id", None) else ids, np.int64)
    if len(own) and own.max() >= len(tokenizer):
        raise ValueError(f"{what} has the token {own.max()}: the model's tokenizer has {len(tokenizer)}")
    text = tokenizer.decode(own.tolist(), clean_up_tokenization_spaces=False)
    encoded = encode(text, tokenizer)
    if np.array_equal(encoded.ids, own):
        return text, encoded
    return decoded(own.tolist(), tokenizer)


def decoded(ids: Sequence[int], tokenizer: Tokenizer) -> tuple[str, Encoded]:
    """Return the text of tokens that the tokenizer cuts otherwise: each is what it adds to the text of those before."""
    text, spans = "", list[Span]()
    for start in range(0, len(ids), AT_ONCE):
        before = list(ids[max(0, start - 1) : start])
        known = len(tokenizer.decode(before, clean_up_tokenization_spaces=False))
        beginnings = [""]
        for stop in range(start + 1, min(start + AT_ONCE, len(ids)) + 1):
            beginnings.append(
                tokenizer.decode(before + list(ids[start:stop]), clean_up_tokenization_spaces=False)[known:]
            )
        # The first bytes of a character are shown as one, which the whole character then replaces.
        ends = [(len(left.rstrip("\ufffd")), len(right)) for left, right in pairwise(beginnings)]
        spans += [(len(text) + left, len(text) + right) for left, right in ends]
        text += beginnings[-1]
    return text, Encoded(np.array(ids, np.int32), spans_of(spans))


def place_tokens(
    number: int,
    article: Article,
    ids: Int[Tensor, " A"],
    spans: Int32[np.ndarray, "A 2"],
) -> TokenisedArticle:
    """Return tokens whose characters are known as an article, with the words that they are of."""
    text = article.text
    spans = trimmed(text, spans)
    own = whitespace_words(text) if article.words is None else spans_of(article.words)
    own = own if len(own) else spans_of([(0, len(text))])
    owners = words_of_tokens(text, spans, own, f"article {article.id or number}")
    places = Places(np.column_stack([owners, spans]))
    return TokenisedArticle(number, article.id, text, ids, places, own, article.parts, article.annotations)


def encode(text: str, tokenizer: Tokenizer) -> Encoded:
    """Return the tokens of a text, as the tokenizer gives them for the whole.

    A long text is tokenised in pieces that overlap, joined where both pieces have the same tokens, some
    before and some after the seam; where they never do, it is tokenised at once.
    """
    if len(text) <= PIECE + OVERLAP:
        return encode_piece(text, tokenizer, 0)
    parts: list[Encoded] = []
    for piece in pieces(text, tokenizer):
        if parts:
            found = seam(parts[-1], piece)
            if found is None:
                return encode_piece(text, tokenizer, 0)
            left, right = found
            parts[-1] = Encoded(*(values[:left].copy() for values in parts[-1]))
            piece = Encoded(*(values[right:] for values in piece))
        parts.append(piece)
    return Encoded(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def pieces(text: str, tokenizer: Tokenizer) -> Iterator[Encoded]:
    """Tokenise a text piece by piece, each with the beginning of the next."""
    for start in range(0, max(1, len(text) - OVERLAP), PIECE):
        yield encode_piece(text[start : start + PIECE + OVERLAP], tokenizer, start)


def encode_piece(text: str, tokenizer: Tokenizer, start: int) -> Encoded:
    """Return the tokens of a text at once, which stands at character `start` of its article.

    ValueError for a tokenizer that can't tell where its tokens stand.
    """
    if not getattr(tokenizer, "is_fast", True):
        raise ValueError("the model's tokenizer can't tell where its tokens stand in a text: it has no tokenizer.json")
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        verbose=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return Encoded(np.array(encoded["input_ids"], np.int32), spans_of(encoded["offset_mapping"]) + np.int32(start))


def seam(left: Encoded, right: Encoded) -> tuple[int, int] | None:
    """Return the tokens, one in each of two pieces, from which on the right one goes on in place of the left one.

    That is the first in the second half of what the pieces share where both have the same tokens on either side.
    """
    middle = right.spans[0, 0] + OVERLAP // 2
    for i in range(int(np.searchsorted(left.spans[:, 0], middle)), len(left.ids) - AGREEMENT):
        j = int(np.searchsorted(right.spans[:, 0], left.spans[i, 0]))
        if left.spans[i - 1, 0] < left.spans[i, 0] and alike(left, right, i, j):
            return i, j
    return None


def alike(left: Encoded, right: Encoded, i: int, j: int) -> bool:
    """Tell whether two pieces have the same tokens around token `i` of one and `j` of the other."""
    if min(i, j) < AGREEMENT or j + AGREEMENT > len(right.ids):
        return False
    own, other = slice(i - AGREEMENT, i + AGREEMENT), slice(j - AGREEMENT, j + AGREEMENT)
    return all(np.array_equal(a[own], b[other]) for a, b in zip(left, right, strict=True))
