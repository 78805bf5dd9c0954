"""Words, spans, other inputs and tables, as a person uses them."""

import csv
import functools
import io
import json
import operator
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch.testing import assert_close

from decomp.cli.main import main
from decomp.corpus.articles import read_articles
from decomp.tables.files import open_table
from tests.conftest import ROOT

MODEL = str(ROOT / "tests" / "golden" / "opt-tiny-pre")
TEXT = "Alice's cat didn't \"see\" it.\tAll\nwas well."


@pytest.fixture(autouse=True)
def corpus(tmp_path):
    (tmp_path / "corpus.jsonl").write_text(
        "\n".join(json.dumps({"body": text, "name": f"n{i}"}) for i, text in enumerate([TEXT, "One more."])), "utf-8"
    )
    return ["corpus.jsonl", MODEL, "--text-field", "body", "--id-field", "name"]


@pytest.fixture
def refused(run):
    def refused(*args):
        result = run(*args)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert "Traceback" not in result.stderr
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        return line

    return refused


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))


def test_places_and_ids(done, corpus):
    rows = rows_of(done("score", *corpus))
    assert list(rows[0])[:5] == ["article_id", "word", "char_start", "char_end", "source_word"]
    words = TEXT.split()
    for row in rows:
        assert row["article_id"] == f"n{row['article']}"
        if row["article"] == "0":
            assert TEXT[int(row["char_start"]) : int(row["char_end"])].strip() in words[int(row["word"])]
            assert -1 <= int(row["source_word"]) <= int(row["word"])
    assert {row["source_word"] for row in rows if row["source_position"] == "-1"} == {"-1"}


def test_words(done, corpus):
    rows = rows_of(done("score", *corpus, "--unit", "word", "--decomposition-length", 3, "--entropy", "--corrected"))
    words = [TEXT.split(), ["One", "more."]]
    assert [row["token"] for row in rows if row["distance"] == "1"] == functools.reduce(operator.iadd, words, [])
    assert {int(row["distance"]) for row in rows} == {1, 2, 3}
    for row in rows:
        own = words[int(row["article"])]
        assert row["position"] == row["word"]
        assert row["token"] == own[int(row["word"])]
        assert row["source_token"] == ("</s>" if row["source_word"] == "-1" else own[int(row["source_word"])])
        assert int(row["distance"]) == int(row["word"]) - int(row["source_word"])
    by_token = {(row["article"], row["position"]): row for row in rows_of(done("score", *corpus))}
    for article, own in enumerate(words):
        for word in range(len(own)):
            tokens = [r for (a, _), r in by_token.items() if (a, r["word"]) == (str(article), str(word))]
            total = sum(float(row["log2_prob"]) for row in tokens)
            (found,) = {r["log2_prob"] for r in rows if (r["article"], r["word"]) == (str(article), str(word))}
            assert_close(float(found), total, rtol=1e-5, atol=1e-4)


def test_word_list(done, refused, corpus):
    words = ["Alice's cat", "didn't", '"see"', "it", ".", "All was", "well."]
    rows = [{"article": "n0", "word": word} for word in words] + [{"article": "n1", "word": "One more."}]
    Path("words.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scored = rows_of(done("score", *corpus, "--unit", "word", "--words", "words.jsonl"))
    assert [row["token"] for row in scored if row["distance"] == "1"] == [
        *(TEXT[m.start() : m.end()] for m in (re.search(re.escape(w).replace(r"\ ", r"\s+"), TEXT) for w in words)),
        "One more.",
    ]
    line = refused("score", *corpus, "--unit", "word", "--words", "words.jsonl", "--corrected")
    assert 'article n0 has the word "Alice\'s cat" where white space sets "Alice\'s" apart' in line
    Path("words.jsonl").write_text(json.dumps({"article": "n0", "word": "Alice"}) + "\n" + json.dumps(rows[1]))
    line = refused("score", *corpus, "--words", "words.jsonl")
    assert 'word 1 of article n0 is "didn\'t" in the word list, at character 5 comes' in line
    assert "can't read none.tsv" in refused("score", *corpus, "--words", "none.tsv")


def test_spans(done, corpus):
    single = rows_of(done("score", *corpus))
    spans = rows_of(done("score", *corpus, "--span", 3))
    score = {(r["article"], int(r["position"]), r["source_position"]): float(r["score"]) for r in single}
    assert {row["span"] for row in spans} == {"3"}
    lengths = {a: 1 + max(p for b, p, _ in score if b == a) for a in ("0", "1")}
    assert {(r["article"], int(r["position"])) for r in spans} == {
        (a, p) for a in lengths for p in range(lengths[a] - 2)
    }
    for row in spans:
        together = [score[row["article"], int(row["position"]) + j, row["source_position"]] for j in range(3)]
        assert_close(float(row["score"]), sum(together), rtol=1e-4, atol=1e-3)


def test_windows_hold_whole_words_and_spans(done, tmp_path):
    text = read_articles(ROOT / "data" / "demo.sentitems")[0].text[:600]
    Path("long.txt").write_text(text, "utf-8")
    for options, count in (
        (("--unit", "word"), len(text.split())),
        (("--unit", "word", "--span", 2), len(text.split()) - 1),
    ):
        rows = rows_of(done("score", "long.txt", MODEL, "--decomposition-length", 2, *options))
        assert list(dict.fromkeys(int(row["position"]) for row in rows)) == list(range(count))
        assert len({row["window"] for row in rows}) > 3


def test_measures_and_units(refused, done, corpus):
    words = ("--unit", "word")
    Path("long.txt").write_text("word " * 99)
    assert "attention of tokens does not add up to that of words" in refused(
        "score", *corpus, *words, "--measure", "attention"
    )
    line = refused("score", *corpus, *words, "--function", "prob")
    assert "prob of tokens does not add up to that of words: score log2_prob" in line
    assert "leave out --unit word and --span" in refused("score", *corpus, "--span", 2, "--target", "last")
    assert "give --unit word" in refused("score", *corpus, "--corrected")
    assert "not defined for rows that are no token and spans" in refused("score", *corpus, "--span", 2, "--extra-rows")
    assert "begins a word or span of more tokens" in refused("score", "long.txt", MODEL, "--span", 64)
    rows = rows_of(done("score", *corpus, *words, "--measure", "input_x_gradient", "--measure", "delta_lp"))
    assert {row["measure"] for row in rows} == {"input_x_gradient", "delta_lp"}


def test_own_row_of_words(done, corpus):
    rows = rows_of(done("score", *corpus, "--unit", "word", "--extra-rows"))
    own = {row["token"]: float(row["score"]) for row in rows if row["source_token"] == "<own>"}
    tokens = {}
    for row in rows_of(done("score", *corpus)):
        tokens.setdefault((row["article"], row["word"]), set()).add(row["position"])
    for row in rows:
        if row["source_token"] == "<own>":
            assert (own[row["token"]] != 0) == (len(tokens[row["article"], row["word"]]) > 1)


def test_standard_input():
    result = CliRunner().invoke(main, ["score", "-", MODEL, "--input-format", "csv"], input="text\nHello there\n")
    assert next(row["token"] for row in rows_of(result.stdout) if row["distance"] == "1") == "H"


def test_decompose_keeps_places(done, corpus):
    done("decompose", *corpus[:2], 4, *corpus[2:])
    stored = rows_of(done("deltalp", "corpus_opt-tiny-pre", MODEL, "--format", "tsv"))
    scored = rows_of(done("score", *corpus, "--decomposition-length", 4))
    for column in ("word", "char_start", "char_end", "source_word", "token", "source_token"):
        assert [row[column] for row in stored] == [row[column] for row in scored]


@pytest.mark.parametrize("name", ["tsv", "csv", "jsonl", "parquet"])
def test_tables(done, corpus, name):
    done("score", *corpus, "--extra-rows", "-o", f"a.{name}")
    done("table", f"a.{name}", "-o", "b.tsv")
    assert Path("b.tsv").read_text("utf-8") == done("score", *corpus, "--extra-rows")
    done("table", "b.tsv", "-o", f"c.{name}")
    assert Path(f"c.{name}").read_bytes() == Path(f"a.{name}").read_bytes()
    assert done("table", f"a.{name}", "--format", "csv") == done("score", *corpus, "--extra-rows", "--format", "csv")


def test_table_selects_and_summarises(done, corpus):
    done("score", *corpus, "--entropy", "--extra-rows", "-o", "a.parquet")
    thin = rows_of(done("table", "a.parquet", "--top", 2, "--max-distance", 5, "--min-abs", 0.01))
    assert {row["source_token"] for row in thin} >= {"<bias>", "<remainder>", "</s>", "<dropped>"}
    sources = [row for row in thin if row["distance"] != "" and row["source_position"] != "-1"]
    assert all(int(row["distance"]) <= 5 and abs(float(row["score"])) >= 0.01 for row in sources)
    done("table", "a.parquet", "--summary", "-o", "s.csv")
    summary = list(csv.DictReader(Path("s.csv").read_text("utf-8").splitlines()))
    every = rows_of(done("table", "a.parquet"))
    assert len(summary) == len({(row["article"], row["position"]) for row in every})
    for one in summary:
        own = [r for r in every if (r["article"], r["position"]) == (one["article"], one["position"])]
        tokens = [r for r in own if r["distance"] and r["source_position"] != "-1"]
        nothing = {"source_token": "", "distance": "", "score": ""}
        best = max(tokens, key=lambda r: float(r["score"]), default=nothing)
        for name in nothing:
            assert one[f"strongest_{name}"] == best[name]
        assert float(one["surprisal"]) == -float(own[0]["log2_prob"])
        assert one["entropy"] == own[0]["entropy"]
        assert [one["bos_score"]] == [r["score"] for r in own if r["source_position"] == "-1"]
        total = torch.tensor([float(r["score"]) for r in own], dtype=torch.float64).abs().sum()
        (bias,) = [float(r["score"]) for r in own if r["source_token"] == "<bias>"]
        assert_close(float(one["bias_share"]), abs(bias) / total.item(), rtol=1e-6, atol=0)


def test_shares_are_of_the_whole_sum(done, corpus, caplog):
    """Whatever is thinned out; what was thinned out before is said, as its sum is not known."""
    done("score", *corpus, "-o", "a.tsv")
    thin = ("--top", 1, "--min-abs", 0.001)
    whole, thinned = (rows_of(done("table", "a.tsv", "--summary", *asked)) for asked in ((), thin))
    assert len(whole) == len(thinned)
    for one, other in zip(whole, thinned, strict=True):
        assert other["strongest_share"] in (one["strongest_share"], "")
        assert other["bos_share"] == one["bos_share"]
    assert any(row["strongest_share"] not in ("", "1.0") for row in thinned)
    done("table", "a.tsv", *thin, "-o", "b.tsv")
    assert caplog.messages == []
    done("table", "b.tsv", "--summary")
    assert caplog.messages == [
        "b.tsv was thinned out before (min-abs 0.001, top 1): shares are of the rows that are left"
    ]


def test_table_merges(done, refused, corpus):
    whole = done("score", *corpus)
    lines = whole.splitlines(keepends=True)
    for number in ("0", "1"):
        Path(f"{number}.tsv").write_text(
            "".join(line for i, line in enumerate(lines) if i == 0 or line.split("\t")[5] == number), "utf-8"
        )
    assert done("table", "1.tsv", "0.tsv") == whole
    assert "is in 1.tsv and in 1.tsv: give each table once" in refused("table", "1.tsv", "1.tsv", "-o", "out.tsv")
    assert not Path("out.tsv").exists()
    done("table", "0.tsv", "-o", "0.parquet")
    assert "0.parquet exists: give --overwrite" in refused("table", "1.tsv", "-o", "0.parquet")
    assert next(iter(open_table(Path("0.parquet")).rows()))[0] == "n0"
    Path("words.txt").touch()
    assert "words.txt must be one of tsv, csv, jsonl, parquet" in refused("table", "words.txt")
