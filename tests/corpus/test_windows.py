"""Reading corpora, cutting windows."""

from types import SimpleNamespace

import pytest
import torch

from decomp.corpus.cutting import cut_windows
from decomp.corpus.targets import only_targets, parse_targets
from decomp.corpus.tokens import beginning_of_sequence
from decomp.corpus.windows import continued, windows_of
from decomp.models.loading import load_tokenizer


@pytest.mark.parametrize("has_bos", [True, False])
@pytest.mark.parametrize("stride", [None, 1, 3, 7])
@pytest.mark.parametrize("length", range(26))
def test_every_token_is_scored_once_with_the_most_context(length, stride, has_bos):
    positions = 8
    windows = list(cut_windows(3, length, positions, stride, has_bos))
    scored = []
    for number, window in enumerate(windows):
        ids = window.ids(torch.arange(100, 100 + length), 0 if has_bos else None)
        assert (window.article, window.number) == (3, number)
        assert 1 <= len(ids) <= positions
        assert window.start == number * (stride or 4)
        for target in window.targets:
            token = int(ids[target + 1]) - 100
            assert window.position(target + 1) == token
            scored.append(token)
            # No window before this one holds the token.
            assert all(not (w.start <= token < w.stop) for w in windows[:number])
        if has_bos:
            assert ids[0] == 0
            assert window.position(0) == -1
    assert scored == list(range(0 if has_bos else 1, length))


@pytest.mark.parametrize(("length", "count"), [(0, 0), (1, 1), (7, 1), (8, 2), (11, 2), (12, 3), (15, 3), (16, 4)])
def test_number_of_windows(length, count):
    assert len(list(cut_windows(0, length, 8))) == count


def test_stride_that_skips_tokens():
    with pytest.raises(ValueError, match=r"stride must be from 1 to 7 .*, not 8"):
        list(cut_windows(0, 20, 8, 8))
    with pytest.raises(ValueError, match="not 0"):
        list(cut_windows(0, 20, 8, 0))


class Letters:
    """A tokenizer of letters."""

    bos_token_id = None

    def __call__(self, text, **_):
        places = [(i, i + 1) for i in range(len(text))]
        return {"input_ids": [ord(letter) - 96 for letter in text], "offset_mapping": places}

    def convert_ids_to_tokens(self, ids):
        return [chr(i + 96) for i in ids]


def test_windows_of_articles():
    config = SimpleNamespace(bos_token_id=0, max_position_embeddings=4)
    windows = windows_of(["abcdef", "", "g"], Letters(), config)
    assert ["".join(w.tokens) for w in windows] == ["`abc", "`cde", "`ef", "`g"]
    assert [w.window.first_scored for w in windows] == [0, 3, 5, 0]
    assert ["".join(w.tokens) for w in windows_of(["abcdef"], Letters(), config, bos=False)] == ["abcd", "cdef"]


def test_no_beginning_of_sequence():
    with pytest.raises(ValueError, match="beginning-of-sequence token: use --no-bos"):
        beginning_of_sequence(Letters(), SimpleNamespace())


@pytest.mark.parametrize("bos", [None, 2])
@pytest.mark.parametrize("position", [1, 5, 11, "last"])
def test_only_target_keeps_its_prediction_and_context(position, bos):
    ids, config = torch.arange(1, 13), SimpleNamespace(bos_token_id=bos)
    windows = windows_of(["abcdefghijkl"], Letters(), config, positions=6, stride=3, bos=bos is not None)
    (cut,) = only_targets(windows, parse_targets(position))
    wanted = len(ids) - 1 if position == "last" else position
    (target,) = cut.window.targets
    assert cut.window.position(target + 1) == wanted
    assert cut.ids[target + 1] == ids[wanted] == cut.ids[-1]
    (whole,) = [w for w in windows if w.window.number == cut.window.number]
    assert target in whole.window.targets
    assert cut.tokens == whole.tokens[: len(cut.tokens)]
    assert cut.text_spans == whole.text_spans[: len(cut.tokens)]


def test_only_target_that_is_nowhere():
    with pytest.raises(ValueError, match="no article has a predicted token at 3: the longest has 3 tokens"):
        only_targets(windows_of(["abc"], Letters(), None, positions=6, bos=False), parse_targets(3))


TEXT = "It  didn't end: \U0001f44d\U0001f3fd cafés\nnew"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("demo-gpt2")


def test_text_spans_of_tokens(tokenizer):
    (window,) = windows_of([TEXT], tokenizer, None, positions=100, bos=False)
    assert "".join(window.tokens) == "".join(tokenizer.tokenize(TEXT))
    words = TEXT.split()
    for token, span in zip(window.tokens, window.text_spans, strict=True):
        text = TEXT[span.char_start : span.char_end]
        surface = tokenizer.convert_tokens_to_string([token])
        if "\ufffd" not in surface:
            assert text == (surface.strip() or surface)
        assert text.strip() in words[span.word]
    assert [p.word for p in window.text_spans] == sorted(p.word for p in window.text_spans)
    # White space that is a token is the next word's.
    first_space = window.tokens.index("Ġ")
    assert window.text_spans[first_space] == (1, 2, 3)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("positions", [12, 20, 100])
def test_windows_end_where_words_do(tokenizer, positions, bos):
    config = SimpleNamespace(bos_token_id=0)
    windows = windows_of([TEXT * 3], tokenizer, config, positions=positions, unit="word", bos=bos)
    words, scored = (TEXT * 3).split(), []
    for window in windows:
        units, of_tokens = window.in_words(), window.word_of_tokens()
        assert len(window.ids) <= positions
        assert len(units.tokens) == len(units.window) == int(of_tokens.max()) + 1
        assert sorted(set(of_tokens.tolist())) == list(range(len(units.tokens)))
        for index, token in enumerate(units.tokens[bos:], bos):
            assert token == words[units.window.position(index)]
            assert units.text_spans[index].word == units.window.position(index)
        # All tokens of a scored word are predicted here.
        for target in units.window.targets:
            (tokens,) = (of_tokens == target + 1).nonzero(as_tuple=True)
            if bos or window.window.start > 0:
                assert set((tokens - 1).tolist()) <= set(window.window.targets)
            scored.append(units.window.position(target + 1))
    assert scored == list(range(not bos, len(words)))


@pytest.mark.parametrize(("span", "stride"), [(1, None), (2, None), (3, 2), (5, 5)])
@pytest.mark.parametrize("has_bos", [True, False])
def test_every_span_is_in_one_window(span, stride, has_bos):
    for length in range(1, 30):
        whole = []
        for window in cut_windows(0, length, 8, stride, has_bos, span=span):
            targets = [t for t in window.targets if window.position(t + span) < window.stop]
            whole += [window.position(t + 1) for t in targets]
        assert whole == list(range(not has_bos, length - span + 1)), length


def test_what_fits_into_no_window():
    with pytest.raises(
        ValueError, match=r"token 0 of article 3 begins a word or span of more tokens than a window has \(7\)"
    ):
        list(cut_windows(3, 20, 8, span=8))
    with pytest.raises(ValueError, match="token 2 of article 0 begins a word"):
        list(cut_windows(0, 20, 8, ends=[2, 10, 20]))


def test_continuations_have_places(tokenizer):
    """New tokens stand where they would if the text had been given whole."""
    config, rest = SimpleNamespace(bos_token_id=0), " didn't 👍🏽 end\nnew"
    (window,) = windows_of(["It"], tokenizer, config, positions=100)
    longer = continued(window, torch.tensor(tokenizer(rest)["input_ids"]), tokenizer)
    (whole,) = windows_of(["It" + rest], tokenizer, config, positions=100)
    assert longer.tokens == whole.tokens
    assert longer.text_spans == whole.text_spans
    assert longer.article.text == "It" + rest
    assert longer.window.targets == range(len(window.ids) - 1, len(longer.ids) - 1)


def test_continued_words(tokenizer):
    (window,) = windows_of(["Alice's c"], tokenizer, SimpleNamespace(bos_token_id=0), positions=100)
    longer = continued(window, torch.tensor(tokenizer("at sat")["input_ids"]), tokenizer)
    assert longer.in_words().tokens[1:] == ("Alice's", "cat", "sat")
