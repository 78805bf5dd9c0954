"""Tables whose sources are groups of tokens: as text, in a terminal, as a picture, on a page."""

import click
import numpy as np
import pytest
from numpy.testing import assert_allclose

import decomp
from decomp.report.groups import aligned
from decomp.report.page.document import document
from decomp.report.page.opening import table_page
from decomp.report.plotting import PlotRequest, picture_of_scores
from decomp.report.terminal import shown
from decomp.report.texts import texts_of
from decomp.tables.table import Table
from tests.commands import MODEL

SENTENCES = ["The key is in the vase.", "He said so.", "Where is the key?", "It is in the"]
TEXT = " ".join(SENTENCES)


@pytest.fixture(scope="module")
def model():
    return decomp.load_model(MODEL)


@pytest.fixture(scope="module")
def scored(model):
    return decomp.score(TEXT, model, sources="sentence")


def sources_of(text):
    return [text.source(place) for place in np.unique(text.sources).tolist()]


def test_a_source_is_the_text_of_its_places(scored):
    (text,) = texts_of(scored)
    begins = np.unique(text.sources).tolist()
    assert ["".join(text.pieces[n : text.stop(n)]).strip() for n in begins] == ["</s>", *SENTENCES]
    assert sources_of(text) == ["</s>", *SENTENCES]
    assert list(text.blocks) == begins
    assert text.segments == {}


def test_words_are_no_blocks(model):
    (text,) = texts_of(decomp.score(TEXT, model, sources="word"))
    assert sources_of(text)[1:4] == ["The", "key", "is"]
    assert list(text.blocks) == []


@pytest.mark.parametrize("target", ["last", [3, 6, 12]])
def test_tokens_that_are_not_predicted_come_from_the_texts_of_groups(model, target):
    (text,) = texts_of(decomp.score(TEXT, model, sources="sentence", targets=target))
    (whole,) = texts_of(decomp.score(TEXT, model, sources="sentence"))
    last = int(text.positions[-1])
    until = whole.pieces[1 : whole.positions.tolist().index(last) + 1]
    assert "".join(text.pieces[1:]).split() == "".join(until).split()
    at = text.positions[text.targets].tolist()
    assert [text.pieces[n].strip() for n in text.targets] == [whole.pieces[n + 1].strip() for n in at]


@pytest.mark.parametrize(
    ("text", "parts", "expected"),
    [
        ("Then he sat.", [None, " ."], ["Then he sat", "."]),
        ("Then he sat there.", [None, " sat", None], ["Then he", " sat", " there."]),
        ("the cat and the dog", [None, " the", None], ["the cat and", " the", " dog"]),
        ("a the cat the dog", [None, " the", None], None),
        ("a cat", [None, " dog"], None),
    ],
)
def test_parts_of_a_text(text, parts, expected):
    assert aligned(text, parts) == expected


def test_a_token_that_may_be_in_several_places_stands_behind_its_group(model):
    said = "It is the key and the vase and the box."
    (whole,) = texts_of(decomp.score(said, model, sources="sentence"))
    ends = [n for n, piece in enumerate(whole.pieces) if piece == " the"]
    targets = [int(whole.positions[n]) for n in (ends[1], len(whole.pieces) - 1)]
    (text,) = texts_of(decomp.score(said, model, sources="sentence", targets=targets))
    assert [piece.strip() for piece in text.pieces[1:]] == [said, "the", "…", "."]


def test_windows_that_divide_a_sentence(model):
    table = decomp.score(TEXT, model, sources="sentence", stride=6)
    (text,) = texts_of(table)
    assert "".join(text.pieces[1:]).strip() == TEXT
    for target, place in enumerate(text.targets.tolist()):
        own = text.sources[text.starts[target] : text.starts[target + 1]].tolist()
        reached = [text.stop(source) for source in own]
        assert reached[:-1] == own[1:]
        assert reached[-1] >= place


def test_groups_with_gaps_are_called_by_their_text(model):
    count = len(decomp.decompose("The key is in the vase.", model).tokens)
    labels = [0, 1, 2, 1, *[3] * (count - 4)]
    (text,) = texts_of(decomp.score("The key is in the vase.", model, sources=labels))
    assert " … " in text.source(1)
    assert text.stop(1) == 2


def test_the_terminal_ranks_sentences(scored):
    lines = click.unstyle(shown(scored, target="last", top=3)).splitlines()
    start = next(n for n, line in enumerate(lines) if line.endswith("back  source"))
    last = [row for row in scored if row.position == scored["position"].max()]
    strongest = sorted(last, key=lambda row: -abs(row.score))[:3]
    for line, row in zip(lines[start + 1 :], strongest, strict=False):
        assert row.source_token in line
        assert float(line.split()[0]) == pytest.approx(row.score, abs=0.005)
        assert row.source_position < 0 or int(line.split()[1]) == row.distance


def test_every_token_of_a_sentence_has_its_colour(scored):
    lines = shown(scored, target="last").split("\n\n")[0]
    (text,) = texts_of(scored)
    pairs = slice(text.starts[-2], text.starts[-1])
    strongest = text.sources[pairs][np.argmax(np.abs(text.scores[0, pairs]))]
    for piece in text.pieces[strongest : min(text.stop(strongest), len(text.pieces) - 1)]:
        assert f"m{piece.strip()}\x1b[0m" in lines


def test_the_picture_has_a_column_for_each_group(scored):
    axes, _ = picture_of_scores(scored, PlotRequest("heat")).axes
    values = np.ma.filled(axes.images[0].get_array(), np.nan)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["</s>", *SENTENCES]
    assert values.shape == (len(np.unique(scored["position"])), 5)
    last = [row.score for row in scored if row.position == scored["position"].max()]
    assert_allclose(values[-1], last)
    with pytest.raises(ValueError, match=r"arcs are between single tokens or words, .* are groups: draw heat"):
        picture_of_scores(scored, PlotRequest("arcs"))


def test_named_groups_and_the_page_without_scripts(scored):
    names = dict(zip(SENTENCES, ("one", "two", "three", "four"), strict=True))
    rows = [row._replace(source_token=names.get(row.source_token, row.source_token)) for row in scored]
    table = Table.from_rows(scored.columns, rows)
    (text,) = texts_of(table)
    assert list(text.segments.values()) == ["one", "two", "three", "four"]
    plain = document(table_page(table, "named")).split("<noscript>")[1]
    assert "one +" in plain or "one -" in plain
