"""CoNLL-U: the text of its documents, their words, and what is annotated of these."""

from pathlib import Path

import pytest

import decomp
from decomp.corpus.article import Article
from decomp.corpus.articles import read_articles
from decomp.corpus.word_lists import annotation_kinds, with_words
from tests.commands import MODEL, refused, table

SAMPLE = """\
# newdoc id = one
# sent_id = s1
# text = He didn't go.
1	He	he	PRON	PRP	Case=Nom|Number=Sing	4	nsubj	_	_
2-3	didn't	_	_	_	_	_	_	_	_
2	did	do	AUX	VBD	_	4	aux	_	_
3	n't	not	PART	RB	_	4	advmod	_	_
4	go	go	VERB	VB	_	0	root	_	SpaceAfter=No
5	.	.	PUNCT	.	_	4	punct	_	_

# sent_id = s2
1	Why	why	ADV	WRB	_	0	root	_	SpaceAfter=No
1.1	left	leave	VERB	VBD	_	_	_	0:root	_
2	?	?	PUNCT	.	_	1	punct	_	_

# newdoc
# sent_id = s3
1	A	a	DET	DT	_	2	det	_	_
2	cat	cat	NOUN	NN	_	0	root	_	_
"""


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "sample.conllu"
    path.write_text(SAMPLE, "utf-8")
    return path


def test_documents_are_articles(sample):
    one, two = read_articles(sample)
    assert (one.id, one.text) == ("one", "He didn't go. Why?")
    assert (two.id, two.text) == ("", "A cat")
    assert [one.text[slice(*span)] for span in one.words] == ["He", "didn't", "go.", "Why?"]
    assert one.annotations["upos"] == ("PRON", "AUX+PART", "VERB+PUNCT", "ADV+PUNCT")
    assert one.annotations["token_id"] == ("1", "2+3", "4+5", "1+2")
    assert one.annotations["sent_id"] == ("s1", "s1", "s1", "s2")
    assert one.annotations["feats"][0] == "Case=Nom|Number=Sing"
    assert [one.text[slice(*span)] for span in one.parts.sentences] == ["He didn't go.", "Why?"]
    assert one.annotations["head"] == ("4", "4", "0+4", "0+1")
    assert annotation_kinds([one, two])["head"] is str
    assert annotation_kinds([two])["head"] is int


def test_tokens_are_the_words_of_a_list(sample):
    articles = [Article("He didn't go. Why?", "one"), Article("A cat")]
    one, two = with_words(sample, articles)
    assert [one.text[slice(*span)] for span in one.words] == ["He", "didn't", "go", ".", "Why", "?"]
    assert one.annotations["upos"] == ("PRON", "AUX+PART", "VERB", "PUNCT", "ADV", "PUNCT")
    assert two.annotations["deprel"] == ("det", "root")


def test_annotations_are_in_the_table(done, sample):
    rows = table(done("score", sample, MODEL, "--unit", "word"))
    target = {row["token"]: row for row in rows}
    assert {token: row["upos"] for token, row in target.items()} == {
        "He": "PRON",
        "didn't": "AUX+PART",
        "go.": "VERB+PUNCT",
        "Why?": "ADV+PUNCT",
        "A": "DET",
        "cat": "NOUN",
    }
    assert target["He"]["xpos"] == "PRP"
    assert list(rows[0])[:7] == ["article_id", "word", "char_start", "char_end", "sent_id", "token_id", "lemma"]
    predictors = table(
        done("score", sample, MODEL, "--unit", "word", "-o", "t.parquet") or done("table", "t.parquet", "--predictors")
    )
    assert [row["deprel"] for row in predictors] == ["nsubj", "aux+advmod", "root+punct", "root+punct", "det", "root"]
    tokens = table(done("score", sample, MODEL, "--words", sample, "--format", "tsv"))
    assert {row["upos"] for row in tokens} == {"PRON", "AUX+PART", "VERB", "PUNCT", "ADV", "DET", "NOUN"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A cat sat.\n", "is no CoNLL-U"),
        ("# newdoc\n", "has no tokens: expected CoNLL-U, ten columns between tabs"),
        ("", "has no tokens"),
    ],
)
def test_what_is_no_conllu_is_refused(sample, text, message):
    sample.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        read_articles(sample)


def test_columns_of_a_word_list_are_in_the_table(run, done):
    Path("c.txt").write_text("A cat sat.", "utf-8")
    words = "article\tzone\tword\tmean_rt\tpart\n0\t1\tA\t301.5\tDET\n0\t2\tcat\t\tNOUN\n0\t3\tsat.\t411\t\n"
    Path("words.tsv").write_text(words, "utf-8")
    options = ("--words", "words.tsv", "--unit", "word")
    rows = {row["token"]: row for row in table(done("score", "c.txt", MODEL, *options))}
    assert [(row["zone"], row["mean_rt"], row["part"]) for row in rows.values()] == [
        ("1", "301.5", "DET"),
        ("2", "", "NOUN"),
        ("3", "411.0", ""),
    ]
    done("score", "c.txt", MODEL, *options, "-o", "t.parquet")
    scored = decomp.load_table("t.parquet")
    assert scored["zone"].dtype.kind == "i"
    assert scored["mean_rt"].dtype.kind == "f"
    Path("words.tsv").write_text(words.replace("mean_rt", "length"), "utf-8")
    done("score", "c.txt", MODEL, *options, "-o", "l.tsv")
    assert "the table has a column 'length', as predictors are called: rename it (in --words)" in refused(
        run("table", "l.tsv", "--predictors")
    )
    Path("words.tsv").write_text(words.replace("mean_rt", "score"), "utf-8")
    assert "words.tsv has the column 'score', as the table of scores has: rename it" in refused(
        run("score", "c.txt", MODEL, *options)
    )
