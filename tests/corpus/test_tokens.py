"""Tokens of long texts, in pieces and in little memory."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from decomp.corpus import tokens
from decomp.corpus.article import Article
from decomp.corpus.articles import read_articles
from decomp.corpus.text_spans import TextSpan, TextSpans
from decomp.corpus.tokens import encode, encode_piece, tokenise
from decomp.corpus.windows import windows_of
from decomp.corpus.words import trimmed, visible_characters
from decomp.models.loading import load_tokenizer
from tests.conftest import ROOT

DEMO = "\n\n".join(article.text for article in read_articles(ROOT / "data" / "demo.sentitems"))
TEXTS = {
    "prose": DEMO,
    "white space": DEMO[:9_000].replace(" ", "  \n ").replace("e", "e\t"),
    "emoji": "".join(f"{word} 👍🏽é" for word in DEMO[:6_000].split()),
    "no white space": "".join(DEMO[:9_000].split()),
    "one letter": "a" * 5_000,
    "spaces alone": " " * 5_000,
}


@pytest.fixture(scope="module", params=["demo-gpt2", "demo-opt"])
def tokenizer(request):
    return load_tokenizer(request.param)


@pytest.fixture
def small_pieces(monkeypatch):
    """Count the pieces, of 701 characters each."""
    lengths = []
    monkeypatch.setattr(tokens, "PIECE", 701)
    monkeypatch.setattr(tokens, "OVERLAP", 120)
    monkeypatch.setattr(
        tokens, "encode_piece", lambda text, *rest: lengths.append(len(text)) or encode_piece(text, *rest)
    )
    return lengths


@pytest.mark.parametrize("name", TEXTS)
def test_pieces_have_the_tokens_of_the_whole(tokenizer, small_pieces, name):
    text = TEXTS[name]
    found, whole = encode(text, tokenizer), encode_piece(text, tokenizer, 0)
    assert found.ids.tolist() == whole.ids.tolist()
    assert found.spans.tolist() == whole.spans.tolist()
    if name in ("prose", "white space", "emoji"):
        assert len(small_pieces) >= 5
        assert max(small_pieces) == 821


@pytest.mark.parametrize("length", range(815, 830))
def test_pieces_at_the_end_of_a_text(tokenizer, small_pieces, length):
    text = DEMO[:length]
    assert encode(text, tokenizer).ids.tolist() == encode_piece(text, tokenizer, 0).ids.tolist()


def test_pieces_that_never_agree_are_tokenised_at_once(small_pieces):
    """A tokenizer of pairs of letters, whose pairs depend on where a text begins."""

    def pairs(text, **_):
        spans = [(i, min(i + 2, len(text))) for i in range(0, len(text), 2)]
        return {"input_ids": [ord(text[a]) for a, _ in spans], "offset_mapping": spans}

    text = "ab" * 2_000
    assert encode(text, pairs).ids.tolist() == [ord("a")] * 2_000
    assert small_pieces[-1] == len(text)


def test_tokenizers_that_cannot_tell_where_tokens_stand():
    with pytest.raises(ValueError, match=r"tokenizer can't tell where its tokens stand in a text"):
        tokenise(0, Article("A text."), SimpleNamespace(is_fast=False))


def test_ink_is_what_is_no_white_space():
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000, 7)]))
    assert visible_characters(text).tolist() == [place for place, c in enumerate(text) if not c.isspace()]


def test_spans_without_white_space():
    spans = np.array([(0, 2), (2, 4), (4, 5), (4, 8), (8, 8)], np.int32)
    assert trimmed(" a  \n b ", spans).tolist() == [[1, 2], [2, 4], [4, 5], [6, 7], [8, 8]]


def test_places_are_a_sequence():
    spans = TextSpans(np.array([(0, 0, 3), (1, 4, 9)], np.int32)).with_bos()
    assert list(spans) == [TextSpan(), TextSpan(0, 0, 3), TextSpan(1, 4, 9)]
    assert (spans[-1], spans[True], len(spans)) == (TextSpan(1, 4, 9), TextSpan(0, 0, 3), 3)
    assert spans[1:] == (TextSpan(0, 0, 3), TextSpan(1, 4, 9))
    assert spans != spans[1:]


def test_a_pickled_window_is_small(tokenizer):
    """A worker is sent the windows, and the article once."""
    windows = windows_of([DEMO * 15], tokenizer, SimpleNamespace(bos_token_id=0), positions=64)
    article = len(pickle.dumps(windows[0].article))
    assert len(pickle.dumps(windows[:20])) < article + 20 * 64 * 40
    again = pickle.loads(pickle.dumps(windows[:20]))
    assert (again[7].tokens, again[7].text_spans) == (windows[7].tokens, windows[7].text_spans)
