"""Tokenising articles, also very long ones: token ids, their words, and their spans of characters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Int32
from torch import Tensor

from decomp.corpus.article import Article
from decomp.corpus.parts import NO_PARTS, Parts, Span
from decomp.corpus.text_spans import TextSpans
from decomp.corpus.tokenizer import Tokenizer
from decomp.corpus.words import spans_of, trimmed, whitespace_words, words_of_tokens

PIECE = 2**17
"""The characters of a long text that are tokenised at once; tokenizers need some hundred bytes for each."""
OVERLAP = 2**11
"""The characters that two neighbouring pieces of a long text share."""
AT_ONCE = 64
"""The tokens that are decoded together, where given token ids are not what the tokenizer makes of their text."""
AGREEMENT = 8
"""The tokens on either side of a seam that both pieces must have in common."""


class EncodedText(NamedTuple):
    """The token ids of a text, and the span of characters of each token."""

    ids: Int32[np.ndarray, " A"]
    spans: Int32[np.ndarray, "A 2"]


@dataclass(frozen=True)
class TokenisedArticle:
    """An article's tokens, with the word and the characters of each."""

    number: int
    """The article's number in the corpus, counted from 0."""
    id: str
    """The article's id in the input file, or an empty string."""
    text: str
    """The text of the article."""
    ids: Int[Tensor, " A"]
    """The token ids of the whole article."""
    text_spans: TextSpans
    """The word and the span of characters of each token."""
    words: Int32[np.ndarray, "words 2"]
    """The span of characters of each word: the first, and the one after the last."""
    parts: Parts = NO_PARTS
    """The sentences, lines, paragraphs and named segments that the input file marks."""
    annotations: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """The annotations of the words: by the name of a column, a value for each word."""

    def word_ends(self) -> list[int]:
        """Return, for each word, the index of the token after its last one."""
        words = self.text_spans.rows[:, 0]
        return [*(np.flatnonzero(np.diff(words)) + 1).tolist(), len(words)] if len(words) else []


def beginning_of_sequence(tokenizer: Tokenizer, config: Any) -> int:
    """Return the id of the beginning-of-sequence token. ValueError where neither tokenizer nor config names one."""
    for owner in (tokenizer, config):
        token = getattr(owner, "bos_token_id", None)
        if token is not None:
            return int(token)
    raise ValueError("neither tokenizer nor config has a beginning-of-sequence token: use --no-bos (bos=False)")


def tokenise(number: int, article: Article, tokenizer: Tokenizer) -> TokenisedArticle:
    """Tokenise an article; one that comes as token ids keeps these. A long text is tokenised in pieces, to save memory.

    ValueError where no token begins in a word, and for token ids that the tokenizer does not have.
    """
    if article.ids is None:
        encoded = encode(article.text, tokenizer)
    else:
        text, encoded = text_of_ids(article.ids, tokenizer, f"article {article.id or number}")
        article = replace(article, text=text)
    return with_tokens(number, article, torch.from_numpy(encoded.ids.astype(np.int64)), encoded.spans)


def text_of_ids(ids: Sequence[int], tokenizer: Tokenizer, what: str) -> tuple[str, EncodedText]:
    """Return the text of token ids, and the span of characters of each; a beginning-of-sequence token is dropped.

    ValueError, which names the article as `what`, for a token id that the tokenizer does not have.
    """
    own = np.array(ids[1:] if ids and ids[0] == getattr(tokenizer, "bos_token_id", None) else ids, np.int64)
    if len(own) and own.max() >= len(tokenizer):
        raise ValueError(f"{what} has the token {own.max()}: the model's tokenizer has {len(tokenizer)}")
    text = tokenizer.decode(own.tolist(), clean_up_tokenization_spaces=False)
    encoded = encode(text, tokenizer)
    if np.array_equal(encoded.ids, own):
        return text, encoded
    return decoded(own.tolist(), tokenizer)


def decoded(ids: Sequence[int], tokenizer: Tokenizer) -> tuple[str, EncodedText]:
    """Return the text of token ids that are not what the tokenizer makes of it, and the characters of each.

    A token's characters are those that it adds to the text of the tokens before it.
    """
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
    return text, EncodedText(np.array(ids, np.int32), spans_of(spans))


def with_tokens(
    number: int,
    article: Article,
    ids: Int[Tensor, " A"],
    spans: Int32[np.ndarray, "A 2"],
) -> TokenisedArticle:
    """Return an article with the given tokens, whose spans of characters are known, and the word of each token."""
    text = article.text
    spans = trimmed(text, spans)
    own = whitespace_words(text) if article.words is None else spans_of(article.words)
    own = own if len(own) else spans_of([(0, len(text))])
    owners = words_of_tokens(text, spans, own, f"article {article.id or number}")
    text_spans = TextSpans(np.column_stack([owners, spans]))
    return TokenisedArticle(number, article.id, text, ids, text_spans, own, article.parts, article.annotations)


def encode(text: str, tokenizer: Tokenizer) -> EncodedText:
    """Return the tokens of a text: those that the tokenizer makes of the whole, in less memory for a long one.

    A long text is tokenised in pieces that overlap. Two pieces are joined where both have the same tokens on either
    side of the seam; where there is no such place, the text is tokenised at once.
    """
    if len(text) <= PIECE + OVERLAP:
        return encode_piece(text, tokenizer, 0)
    parts: list[EncodedText] = []
    for piece in pieces(text, tokenizer):
        if parts:
            found = seam(parts[-1], piece)
            if found is None:
                return encode_piece(text, tokenizer, 0)
            left, right = found
            parts[-1] = EncodedText(*(values[:left].copy() for values in parts[-1]))
            piece = EncodedText(*(values[right:] for values in piece))
        parts.append(piece)
    return EncodedText(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def pieces(text: str, tokenizer: Tokenizer) -> Iterator[EncodedText]:
    """Yield the tokens of a long text piece by piece; each piece ends with the first characters of the next one."""
    for start in range(0, max(1, len(text) - OVERLAP), PIECE):
        yield encode_piece(text[start : start + PIECE + OVERLAP], tokenizer, start)


def encode_piece(text: str, tokenizer: Tokenizer, start: int) -> EncodedText:
    """Return the tokens of a text, tokenised at once; `start` is its first character's index in the article.

    ValueError for a tokenizer that does not give the characters of its tokens.
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
    return EncodedText(np.array(encoded["input_ids"], np.int32), spans_of(encoded["offset_mapping"]) + np.int32(start))


def seam(left: EncodedText, right: EncodedText) -> tuple[int, int] | None:
    """Return where to join two overlapping pieces: the index of one token in the left and in the right piece.

    It is the first token in the second half of the overlap around which both pieces have the same tokens. None where
    there is no such token.
    """
    middle = right.spans[0, 0] + OVERLAP // 2
    for i in range(int(np.searchsorted(left.spans[:, 0], middle)), len(left.ids) - AGREEMENT):
        j = int(np.searchsorted(right.spans[:, 0], left.spans[i, 0]))
        if left.spans[i - 1, 0] < left.spans[i, 0] and agree_around(left, right, i, j):
            return i, j
    return None


def agree_around(left: EncodedText, right: EncodedText, i: int, j: int) -> bool:
    """Return whether two pieces have the same tokens around token `i` of the left and `j` of the right one."""
    if min(i, j) < AGREEMENT or j + AGREEMENT > len(right.ids):
        return False
    own, other = slice(i - AGREEMENT, i + AGREEMENT), slice(j - AGREEMENT, j + AGREEMENT)
    return all(np.array_equal(a[own], b[other]) for a, b in zip(left, right, strict=True))
