"""Entropy, and the correction of word probabilities, against brute force."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from decomp.core.ablation import Unembedding
from decomp.corpus.windows import windows_of
from decomp.measures import Request, Text, find_measure
from decomp.measures.surprisal import begins_word, boundary_correction, next_entropy, next_log2_mass
from decomp.models.loading import load_tokenizer
from decomp.tables.blocks import rows_of
from decomp.tables.leading_columns import LeadingColumns
from tests.variants import VOCAB, make_pair

HIDDEN, WEIGHT, BIAS = torch.randn(70, 8).double(), torch.randn(50, 8).double(), torch.randn(50).double()


@pytest.mark.parametrize("bias", [None, BIAS])
def test_entropy_and_mass(bias):
    unembedding = Unembedding(WEIGHT, bias)
    prob = torch.softmax(HIDDEN @ WEIGHT.T + (0 if bias is None else bias), 1)
    assert_close(next_entropy(HIDDEN, unembedding), -(prob * prob.log2()).sum(1), rtol=0, atol=1e-10)
    members = torch.arange(50) % 3 == 0
    assert_close(next_log2_mass(HIDDEN, unembedding, members), prob[:, members].sum(1).log2(), rtol=0, atol=1e-10)


def test_certainty_has_no_entropy():
    weight = torch.tensor([[1e4], [0.0]])
    assert_close(next_entropy(torch.ones(1, 1), Unembedding(weight)), torch.zeros(1))


@pytest.mark.parametrize("name", ["demo-opt", "demo-gpt2"])
def test_tokens_that_begin_a_word(name):
    tokenizer = load_tokenizer(name)
    begins = begins_word(tokenizer, len(tokenizer) + 3)
    assert begins[-3:].tolist() == [False] * 3
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_tokens)
    for token, is_begin in zip(tokens, begins[:-3].tolist(), strict=True):
        # The byte-level letters of space, line feed, tab and carriage return.
        assert is_begin == (
            token in special or token[0] in "ĠĊĉč" or tokenizer.convert_tokens_to_string([token])[:1].isspace()
        )


def test_correction_by_hand():
    boundary = torch.tensor([-9.0, -1.0, -2.0, -3.0, -4.0])
    words = torch.tensor([0, 1, 1, 2, 3])
    assert boundary_correction(boundary, words, 1).tolist() == [-9.0, -2.0, -3.0 + 2.0, -4.0 + 3.0]
    assert boundary_correction(boundary[1:], torch.tensor([0, 0, 1, 2]), 0).tolist() == [-2.0, -3.0 + 2.0, -4.0 + 3.0]


class Syllables:
    """Tokens of one letter: capitals begin a word (the space is theirs), as do special tokens below 3."""

    bos_token_id, all_special_ids = 2, [0, 1, 2]

    def __len__(self):
        return VOCAB

    def batch_decode(self, ids, **_):
        return [f" {i}" if i % 3 == 0 else str(i) for (i,) in ids]

    def __call__(self, text, **_):
        places = [(i, i + 1) for i, letter in enumerate(text) if letter != " "]
        ids = [3 * (ord(text[i]) - 90) + (0 if i and text[i - 1] == " " else 1) for i, _ in places]
        return {"input_ids": ids, "offset_mapping": places}

    def convert_ids_to_tokens(self, ids):
        return [str(i) for i in ids]


@pytest.mark.parametrize("span", [1, 2])
@pytest.mark.parametrize("variant", ["opt", "gpt2"])
def test_corrected_words_by_brute_force(variant, span):
    """The probability that exactly this word comes: its tokens, then any token that begins another, given that the
    word before has ended; summed over the vocabulary one token at a time with the plain model."""
    plain, model = make_pair(variant)
    tokenizer, text = Syllables(), "abc d ef gab c d"
    front = LeadingColumns("word", span, entropy=True, boundaries=begins_word(tokenizer, VOCAB))
    config = SimpleNamespace(bos_token_id=2)
    (window,) = windows_of([text], tokenizer, config, positions=40, unit="word", span=span)
    texts = [Text(window.ids, window.window.targets, words=window.word_of_tokens())]
    ((result,),) = find_measure("delta_lp")(model, texts, Request(span=span))
    with torch.no_grad():
        prob = torch.softmax(plain(window.ids[None]).logits[0], -1)
    ended = [sum(prob[t, v].item() for v in range(VOCAB) if v < 3 or v % 3 == 0) for t in range(len(window.ids))]
    words, seen = window.word_of_tokens().tolist(), []
    (block,) = front.blocks(model, window, [result])
    for row in rows_of(block):
        values = dict(zip(front.columns, row, strict=True))
        own = [i for i, w in enumerate(words) if values["position"] < w <= values["position"] + span]
        whole = math.prod(prob[i - 1, window.ids[i]].item() for i in own) * ended[own[-1]]
        if values["position"] > 0:
            whole /= ended[own[0] - 1]
        assert abs(values["corrected_log2_prob"] - math.log2(whole)) < 1e-10
        entropy = -(prob[own[0] - 1] * prob[own[0] - 1].log2()).sum().item()
        assert abs(values["entropy"] - entropy) < 1e-10
        seen.append(values["position"])
    assert set(seen) == set(range(len(text.split()) - span + 1))
