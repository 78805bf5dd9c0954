"""Which source each token of a text belongs to: words, sentences, lines, paragraphs, segments, labels."""

import json
from dataclasses import replace

import pytest
import torch

from decomp.corpus.article import Article
from decomp.corpus.articles import read_articles, text_articles
from decomp.corpus.parts import Parts, parts_of_lines, spans_of_kind
from decomp.corpus.source_kinds import check_segments, check_sources
from decomp.corpus.sources import check_fit, source_labels, source_text
from decomp.corpus.windows import continued, windows_of
from decomp.measures.windows import partition_of
from decomp.models.loading import load_model

TEXT = "Mr. Poe paid $3.50 for it. She asked why.\nHe left.\n  \nIt rained, e.g. on Sunday.\n\n\nThe end"


def pieces(kind, text=TEXT, parts=None):
    return [text[first:last] for first, last in spans_of_kind(kind, text, parts or Parts())]


@pytest.fixture(scope="module")
def opened():
    return load_model("demo-opt")


def window_of(opened, article, **options):
    model, tokenizer = opened
    (window,) = windows_of([article], tokenizer, model.config, positions=model.max_length(), **options)
    return window


def test_lines_and_paragraphs_are_those_of_the_raw_text():
    assert pieces("line") == [*TEXT.split("\n")[:4], "The end"]
    assert pieces("paragraph") == ["\n".join(TEXT.split("\n")[:2]), "It rained, e.g. on Sunday.", "The end"]


def test_sentences_end_neither_at_abbreviations_nor_in_numbers():
    first, *rest = pieces("sentence")
    assert first == "Mr. Poe paid $3.50 for it."
    assert rest == ["She asked why.", "He left.", "It rained, e.g. on Sunday.", "The end"]


def test_lines_of_an_article_are_its_sentences():
    (article,) = text_articles("!ARTICLE one\nFirst. Still first\nsecond\n\nthird.\n")
    assert article.text == "First. Still first second third."
    assert pieces("sentence", article.text, article.parts) == ["First. Still first", "second", "third."]
    assert pieces("line", article.text, article.parts) == ["First. Still first", "second", "third."]
    assert pieces("paragraph", article.text, article.parts) == ["First. Still first second", "third."]


def test_an_article_on_one_line_has_the_sentences_of_its_text():
    (article,) = text_articles("!ARTICLE\nFirst one. Second one.\n")
    assert pieces("sentence", article.text, article.parts) == ["First one.", "Second one."]
    assert parts_of_lines([]) == Parts()


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("word", ["A", "cat", "sat.", "It", "slept."]),
        ("sentence", ["A cat sat.", "It slept."]),
        ("line", ["A cat", "sat. It slept."]),
        ("paragraph", ["A cat sat. It slept."]),
    ],
)
def test_every_token_belongs_to_one_source(opened, kind, texts):
    window = window_of(opened, "A cat\nsat. It slept.")
    partition = partition_of(window, kind)
    members = [(partition.labels == g).nonzero()[:, 0].tolist() for g in range(partition.count)]
    assert [source_text(window, own) for own in members] == [window.tokens[0], *texts]
    assert partition_of(window, None) is None
    assert partition_of(window, "token") is None
    assert partition_of(window, "word", "word") is None


def test_a_window_that_begins_within_a_sentence(opened):
    model, tokenizer = opened
    windows = windows_of(["One two three. " * 8], tokenizer, model.config, positions=12)
    assert len(windows) > 2
    for window in windows[1:]:
        partition = partition_of(window, "sentence")
        assert partition.labels[:2].tolist() == [0, 1]
        words = [window.text_spans[i].word // 3 for i in range(1, len(window.ids))]
        assert (partition.labels[1:] - 1).tolist() == [word - words[0] for word in words]


def test_named_segments_and_what_the_model_wrote(opened):
    text = "The key. The door."
    parts = Parts(segments=((0, 8), (9, 18)), names=("first", "second"))
    window = window_of(opened, Article(text, parts=parts))
    assert partition_of(window, "segment").names == (window.tokens[0], "first", "second")
    longer = continued(window, torch.tensor([5, 6]), opened[1])
    assert partition_of(longer, "segment").names[-1] == "<continuation>"
    assert partition_of(longer, "segment").labels[-2:].tolist() == [3, 3]


ITEM = {
    "id": "x",
    "segments": [{"name": "first", "text": "The key."}, {"text": "The door."}],
    "answer": "It is shut.",
}


def test_segments_of_an_input_file(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps(ITEM), "utf-8")
    (article,) = read_articles(path)
    assert article == Article("The key.\nThe door. It is shut.", "x")
    assert article.parts == Parts(segments=((0, 8), (9, 18)), names=("first", "segment 2"))
    other = replace(article, parts=replace(article.parts, names=("first", "second")))
    assert article.content() != other.content()  # names stand in the table: a run of one is not that of the other


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"segments": [{"name": "a"}]}, "items.jsonl, line 1, a"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "has messages, which the chat template .* decomp context"),
        ({"segments": "a"}, "has no text in 'text': it has segments"),
    ],
)
def test_segments_of_an_input_file_that_are_refused(tmp_path, given, message):
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps(given), "utf-8")
    with pytest.raises(ValueError, match=message):
        read_articles(path)


def test_labels_may_have_holes(opened):
    window = window_of(opened, "A cat sat. It slept.")
    labels = [9, 0, 0, 1, 1, 0, 0, 7, 7, 7][: len(window.ids)]
    assert partition_of(window, labels).labels.tolist()[:6] == [0, 1, 1, 2, 2, 1]
    own = [i for i, label in enumerate(labels) if label == 0]
    assert " … " in source_text(window, own)
    assert source_labels(window, torch.tensor(labels)).labels.tolist() == labels


def test_sources_that_are_refused(opened):
    window = window_of(opened, Article("A cat sat.", "a1"))
    with pytest.raises(ValueError, match=r"one of token, word, .*: not 'clause'"):
        check_sources("clause")
    with pytest.raises(ValueError, match="sources of words are words or larger"):
        check_sources("token", "word")
    with pytest.raises(ValueError, match="article a1 has no named segments"):
        check_segments("segment", [Article("A cat sat.", "a1")])
    with pytest.raises(ValueError, match=f"a label for each of the {len(window.ids)} tokens .*, not 2"):
        check_fit([0, 1], [window])
    with pytest.raises(ValueError, match="labels are for the tokens of one window, the text has 2"):
        check_fit([0, 1], [window, window])
