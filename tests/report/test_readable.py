"""Token strings become text that can be read, and that controls nothing."""

import pytest

from decomp.report.readable import one_line, pieces_of, sentences_of, visible, words_of


def test_byte_level_tokens_are_decoded_as_one_stream():
    tokens = ["Caf", "Ã", "©", "Ġ", "ð", "Ł", "Ļ", "Ĥ", "Ċ", "The"]
    pieces = pieces_of(tokens)
    assert pieces == ["Caf", "·", "é", " ", "·", "·", "·", "🙂", "\n", "The"]


def test_sentencepiece_and_words():
    assert pieces_of(["▁The", "▁cat", "s", "<0x0A>", "<0xE2>"]) == [" The", " cat", "s", "\n", "·"]
    assert pieces_of(["The", "cats"]) == ["The", " cats"]
    assert pieces_of(["Ġis", "Maltese"], "plain") == ["Ġis", " Maltese"]


def test_a_token_of_no_bytes_stays():
    assert pieces_of(["Ġa", "<｜end▁of｜>", "b"], "byte-level") == [" a", "<｜end▁of｜>", "b"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "⟨U+001B⟩[31mred"),
        ("a\u202eb\u2066c", "a⟨U+202E⟩b⟨U+2066⟩c"),
        ("\ud800", "⟨U+D800⟩"),
        ("\u2028x\x00", "⟨U+2028⟩x⟨U+0000⟩"),
        ("a\u200db\tc\n", "a\u200db\tc\n"),
        ("\ufeffשלום", "⟨U+FEFF⟩שלום"),
    ],
)
def test_what_controls_is_shown_by_its_code(text, shown):
    assert visible(text) == shown


def test_labels_are_one_line():
    assert (one_line(" the"), one_line("\n"), one_line("  "), one_line("a\tb")) == ("the", "↵", "␣", "a⇥b")


def test_words_and_sentences():
    pieces = ["He", " s", "ang", ".", " “", "Well", "!”", " She", "\n", "left", " at", " 3.5", " today"]
    words = words_of(pieces)
    assert words == [0, 1, 1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8]
    assert sentences_of(pieces, words) == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 3]
