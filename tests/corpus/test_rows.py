"""Rows of a data set, and texts that come as token ids."""

import json
from operator import attrgetter
from pathlib import Path

import pytest

import decomp
from decomp.corpus.article import Article
from decomp.corpus.articles import InputFormat, articles_of_rows
from decomp.corpus.tokens import decoded, tokenise
from decomp.models.loading import load_tokenizer
from tests.commands import MODEL, refused

ROWS = [{"body": "The old dog ran.", "name": "a"}, {"body": "A cat sat on the cup.", "name": "b"}]


class DataSet:
    """What the library `datasets` gives: columns by name, and rows."""

    column_names = ("body", "name")

    def __iter__(self):
        return iter(ROWS)

    def to_dict(self, batch_size=None):
        return {name: [row[name] for row in ROWS] for name in self.column_names}


@pytest.mark.parametrize("source", [ROWS, DataSet()])
def test_rows_are_scored_as_texts_are(source):
    texts = decomp.score([row["body"] for row in ROWS], MODEL)
    rows = decomp.score(source, MODEL, text_field="body", id_field="name")
    assert list(rows["score"]) == list(texts["score"])
    assert list(dict.fromkeys(rows["article_id"])) == ["a", "b"]


def test_a_real_data_set():
    datasets = pytest.importorskip("datasets", reason="needs datasets (extra test)")
    rows = decomp.score(datasets.Dataset.from_list(ROWS), MODEL, text_field="body")
    assert len(rows) == len(decomp.score([row["body"] for row in ROWS], MODEL))


@pytest.mark.parametrize(
    ("library", "make"),
    [("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table.from_pylist")],
)
def test_a_data_frame(library, make):
    module = pytest.importorskip(library, reason=f"needs {library} (extra test)")
    rows = decomp.score(attrgetter(make)(module)(ROWS), MODEL, text_field="body", id_field="name")
    assert list(dict.fromkeys(rows["article_id"])) == ["a", "b"]


def test_what_is_no_text_is_refused():
    with pytest.raises(ValueError, match="row 0 has no text in 'text': it has body, name; say which"):
        decomp.score(ROWS, MODEL)
    with pytest.raises(ValueError, match="expected one data set, not several: give one of train, test"):
        decomp.score({"train": DataSet(), "test": DataSet()}, MODEL)
    with pytest.raises(ValueError, match="there is no text in the 1 rows of the data set"):
        articles_of_rows([{"text": " "}])


@pytest.fixture
def tokenizer():
    return load_tokenizer(MODEL)


@pytest.mark.parametrize("text", ["The cats sleep.", "naïve – €5 \U0001f642!", "  two  spaces\n"])
def test_ids_are_the_text_that_they_are_of(tokenizer, text):
    by_text = tokenise(0, Article(text), tokenizer)
    ids = tuple(by_text.ids.tolist())
    for given in (ids, (tokenizer.bos_token_id, *ids)):
        by_ids = tokenise(0, Article("", ids=given), tokenizer)
        assert (by_ids.text, by_ids.ids.tolist()) == (text, list(ids))
        assert by_ids.text_spans == by_text.text_spans
    assert decoded(ids, tokenizer)[0] == text


def test_ids_that_the_tokenizer_would_cut_otherwise_stay(tokenizer):
    ids = [*tokenizer("The c").input_ids[1:], *tokenizer("ats").input_ids[1:]] * 40
    article = tokenise(0, Article("", ids=tuple(ids)), tokenizer)
    assert article.ids.tolist() == ids
    assert article.text == tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    pieces = [article.text[span.char_start : span.char_end] for span in article.text_spans]
    assert "".join(pieces).replace(" ", "") == article.text.replace(" ", "")


def test_ids_in_a_file(run, done, tokenizer):
    texts = [row["body"] for row in ROWS]
    Path("texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    ids = [tokenizer(text).input_ids for text in texts]
    Path("ids.jsonl").write_text("".join(json.dumps({"input_ids": own}) + "\n" for own in ids), "utf-8")
    command = ("--text-field", "input_ids", "--unit", "word")
    assert done("score", "ids.jsonl", MODEL, *command) == done("score", "texts.jsonl", MODEL, "--unit", "word")
    Path("ids.jsonl").write_text('{"input_ids": [2, 99999]}\n', "utf-8")
    assert "article 0 has the token 99999: the model's tokenizer has" in refused(
        run("score", "ids.jsonl", MODEL, *command)
    )
    Path("words.tsv").write_text("article\tword\n0\tThe\n", "utf-8")
    assert "comes as token ids: a list of words needs its text" in refused(
        run("score", "ids.jsonl", MODEL, *command, "--words", "words.tsv")
    )
    assert articles_of_rows([{"ids": [3, 4]}], InputFormat(None, "ids"))[0].ids == (3, 4)


def test_texts_have_no_columns(tmp_path):
    with pytest.raises(ValueError, match="a text has no columns: leave out text_field and id_field, or give rows"):
        decomp.score("A text.", MODEL, text_field="body")
    (tmp_path / "a.txt").write_text("A text.")
    with pytest.raises(ValueError, match=r"a\.txt has no columns: leave out --text-field and --id-field"):
        decomp.score(tmp_path / "a.txt", MODEL, id_field="name")
