"""--sources of every command that has it, and sources= in Python, as a person uses them."""

import json

import pytest
import torch
from torch.testing import assert_close

import decomp
from decomp.corpus.article import Article
from decomp.jobs import open_scoring
from decomp.settings import scoring_settings
from decomp.tables.files import open_table
from decomp.tables.inseq import write_inseq
from tests.commands import MODEL, refused, table

TEXT = "The key is in the vase. He said so. Where is the key? It is in the"


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    return "text.txt"


@pytest.fixture(scope="module")
def model():
    return decomp.load_model(MODEL, dtype="float64")


SEGMENTS = [{"name": "hall", "text": "The key is in the vase."}, {"name": "note", "text": "He said so."}]


def test_segments_are_the_sources_of_an_answer(done, tmp_path, model):
    """The answer's tokens rest on the first segment, added up, as much as `decomp context` says of the answer."""
    item = {"segments": SEGMENTS, "answer": "It is in the vase."}
    (tmp_path / "items.jsonl").write_text(json.dumps(item), "utf-8")
    last = table(done("score", "items.jsonl", MODEL, "--sources", "segment", "--target", "last"))
    assert [row["source_token"] for row in last] == ["</s>", "hall", "note", "<continuation>"]
    rows = table(done("score", "items.jsonl", MODEL, "--sources", "segment", "--dtype", "float64"))
    answer = [row["position"] for row in rows if row["source_token"] == "<continuation>"]
    first = str(int(answer[0]) - 1)  # before it, no token of the answer is a source
    scores = [
        float(row["score"]) for row in rows if row["source_token"] == "hall" and row["position"] in (first, *answer)
    ]
    (whole,) = (row for row in decomp.context([item], model) if row.segment == "hall" and row.part == "answer")
    assert sum(scores) == pytest.approx(whole.score, abs=1e-9)


def test_segments_are_the_sources_of_a_contrast(done, tmp_path):
    item = {"segments": SEGMENTS, "target": "He", "foil": "The"}
    (tmp_path / "items.jsonl").write_text(json.dumps(item), "utf-8")
    by_segment = table(done("contrast", "items.jsonl", MODEL, "--sources", "segment", "--measure", "delta_lp"))
    assert [row["source_token"] for row in by_segment] == ["</s>", "hall", "note"]
    plain = {**item, "prompt": "The key is in the vase.\nHe said so."}
    del plain["segments"]
    (tmp_path / "plain.jsonl").write_text(json.dumps(plain), "utf-8")
    by_line = table(done("contrast", "plain.jsonl", MODEL, "--sources", "line", "--measure", "delta_lp"))
    assert [row["score"] for row in by_segment] == [row["score"] for row in by_line]


def test_sentences_are_the_sources_of_every_token(done, text):
    rows = table(done("score", text, MODEL, "--sources", "sentence"))
    last = [row for row in rows if row["position"] == rows[-1]["position"]]
    sentences = ["The key is in the vase.", "He said so.", "Where is the key?", "It is in the"]
    assert [row["source_token"] for row in last[1:]] == sentences
    assert last[0]["source_position"] == "-1"
    first = {row["position"]: row for row in table(done("score", text, MODEL)) if row["source_position"] == "0"}
    for row in rows:
        if row["source_position"] == "0":
            assert row["distance"] == first[row["position"]]["distance"]
    assert sum(int(row["source_length"]) for row in last) > 16


@pytest.mark.parametrize("measure", ["decomposed_logit", "input_x_gradient", "attention"])
def test_rows_of_a_sentence_are_the_sums_over_its_tokens(model, measure):
    sentences, tokens = (decomp.score(TEXT, model, measure, sources=sources) for sources in ("sentence", None))
    labels = decomp.decompose(TEXT, model, sources="sentence").partition
    sums = {}
    for row in tokens.select(measure=measure):
        if row.source_position is not None:
            key = row.position, int(labels.labels[row.source_position + 1])
            sums[key] = sums.get(key, 0) + row.score
    for row in sentences:
        if row.source_position is not None:
            own = labels.begins.index(row.source_position + 1)
            assert_close(row.score, sums[row.position, own], rtol=1e-6, atol=1e-8)


def test_labels_and_their_name_give_the_same_table(model):
    named = decomp.score(TEXT, model, sources="sentence", decomposition_length=2)
    labels = decomp.decompose(TEXT, model, sources="sentence").partition.labels
    given = decomp.score(TEXT, model, sources=labels, decomposition_length=2)
    assert list(named) == list(given)
    assert given.about["options"]["sources"] == labels.tolist()
    assert "sources" not in decomp.score(TEXT, model).about["options"]


def test_words_as_sources_of_single_tokens(done, text):
    rows = table(done("score", text, MODEL, "--sources", "word", "--decomposition-length", "2", "--top", "1"))
    kept = [row for row in rows if row["source_token"] != "<dropped>" and row["source_position"] != "-1"]
    assert {row["source_token"] for row in kept} <= set(TEXT.split())


def test_words_are_predicted_from_sentences(done, text):
    rows = table(done("score", text, MODEL, "--sources", "sentence", "--unit", "word"))
    assert {row["token"] for row in rows} == set(TEXT.split())
    last = [row for row in rows if row["position"] == rows[-1]["position"]]
    assert [row["source_position"] for row in last] == ["-1", "0", "6", "9", "13"]


def test_contrast_by_sentence(done, tmp_path):
    item = ("--prompt", "The keys are here. The cats saw it. The cabinet", "--target", " were not", "--foil", " was")
    for multi_token in ("first", "sum"):
        asked = ("contrast", *item, MODEL, "--measure", "delta_lp", "--sources", "sentence")
        rows = table(done(*asked, "--multi-token", multi_token))
        assert [row["source_token"] for row in rows[1:4]] == ["The keys are here.", "The cats saw it.", "The cabinet"]
        assert [row["source_position"] for row in rows[:2]] == ["-1", "0"]
    labels = [0, *[1] * 40]
    with pytest.raises(ValueError, match=r"a label for each of the prompt's .* tokens .*, not 41"):
        decomp.contrast("The keys", "were", "was", MODEL, sources=labels)


def test_contrast_sums_over_the_tokens_of_a_sentence(model):
    asked = ("The keys are here. The cabinet", "were", "was", model, "decomposed_logit")
    tokens, sentences = (decomp.contrast(*asked, sources=sources) for sources in (None, "sentence"))
    scores = {row.source_position: row.score for row in tokens if row.source_position is not None}
    begins = [row.source_position for row in sentences if row.source_position is not None]
    for row, end in zip(sentences, [*begins[1:], 10**6], strict=False):
        if row.source_position is not None:
            own = [scores[place] for place in scores if row.source_position <= place < end]
            assert_close(row.score, sum(own), rtol=1e-6, atol=1e-8)


def test_stored_sentences(done, text, run, tmp_path):
    done("decompose", text, MODEL, "3", "--sources", "sentence", "--output-dir", "stored")
    identifier = "text_opt-tiny-pre"
    stored = table(done("deltalp", identifier, MODEL, "--output-dir", "stored", "--format", "tsv"))
    scored = table(done("score", text, MODEL, "--sources", "sentence", "--decomposition-length", "3"))
    columns = ("position", "source_position", "source_token", "source_length", "distance")
    assert [[row[c] for c in columns] for row in stored] == [[row[c] for c in columns] for row in scored]
    numbers = [torch.tensor([float(row["score"]) for row in rows]) for rows in (stored, scored)]
    assert_close(*numbers, rtol=0, atol=1e-4)
    message = refused(run("deltalp", identifier, MODEL, "--output-dir", "stored"))
    assert "has groups of tokens for sources, the text format has tokens: give --format tsv" in message


def test_faithfulness_and_agreement_by_sentence(done, text, tmp_path):
    done("evaluate", "faithfulness", text, MODEL, "--sources", "sentence", "--draws", "2", "-o", "f.tsv")
    rows = table((tmp_path / "f.tsv").read_text("utf-8"))
    assert {row["measure"] for row in rows} == {"delta_lp", "<random>"}
    done(
        *("evaluate", "agreement", text, MODEL, "--sources", "sentence"),
        *("--measure", "delta_lp"),
        "--measure",
        "attention",
    )


def test_group_tables_are_reduced_and_shown_but_make_no_predictors(done, text, run, tmp_path):
    done("score", text, MODEL, "--sources", "sentence", "--top", "1", "-o", "groups.parquet")
    assert "source_length" in open_table(tmp_path / "groups.parquet").columns
    said = "the table's sources are groups of tokens: score it without --sources"
    assert said in refused(run("table", "--predictors", "-o", "p.tsv", "groups.parquet"))
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "groups.parquet"}
    assert "He said so." in done("show", "groups.parquet", "--target", "last")
    done("report", "groups.parquet", "-o", "page.html")
    done("plot", "groups.parquet", "-o", "p.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sources", "segment"), "article 0 has no named segments, which sources by segment need"),
        (("--sources", "sentence", "--measure", "gradient_norm"), "gradient_norm of tokens does not add up to that of"),
        (("--sources", "token", "--unit", "word"), "sources of words are words or larger"),
    ],
)
def test_refusals(run, text, options, message):
    assert message in refused(run("score", text, MODEL, *options))


def test_other_refusals(run, text, tmp_path):
    asked = ("decompose", text, MODEL, "3", "--sources", "line", "--format", "pt")
    assert "the .pt format has tokens for sources" in refused(run(*asked))
    assert not (tmp_path / "output").exists()
    with pytest.raises(ValueError, match=r"one of token, word, .*, or a label for each token: not 'clause'"):
        decomp.score(TEXT, MODEL, sources="clause")
    with pytest.raises(ValueError, match="alignment asks for known words among single tokens"):
        decomp.alignment(tmp_path / "items.csv", MODEL, sources="word")


def test_tables_of_groups_are_no_files_of_inseq(model, tmp_path):
    with pytest.raises(ValueError, match="files of inseq have scores of single tokens or words, the table's sources"):
        write_inseq(decomp.score(TEXT, model, sources="sentence"), tmp_path / "scores.json")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("length", [None, 2])
def test_a_plan_counts_the_pairs_of_sources(model, length):
    scoring = open_scoring(scoring_settings([Article(TEXT)], sources="sentence", decomposition_length=length), model)
    (item,) = scoring.work().plan
    tokens = decomp.decompose(TEXT, model, decomposition_length=length)
    sentences = decomp.decompose(TEXT, model, sources="sentence", decomposition_length=length)
    assert item.pairs == len(sentences.rows)
    (whole,) = open_scoring(scoring_settings([Article(TEXT)], decomposition_length=length), model).work().plan
    assert whole.pairs == len(tokens.rows)
    assert (item.cost < whole.cost) == (item.pairs < whole.pairs)
