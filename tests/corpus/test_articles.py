"""Corpora in all the forms that people bring."""

import gzip
import io
import json
from types import SimpleNamespace

import pytest

from decomp.corpus.articles import Article, InputFormat, corpus_name, read_articles


@pytest.fixture
def write(tmp_path):
    def write(content, name="corpus.sentitems"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def texts(path, **form):
    return [article.text for article in read_articles(path, InputFormat(**form))]


def test_lines_of_an_article_are_joined_with_one_space(write):
    path = write("\n!ARTICLE\nOne line. \n\n  Another. \r\n!ARTICLE\n!ARTICLE\nLast")
    assert texts(path) == ["One line. Another.", "", "Last"]


def test_byte_order_mark(write):
    assert texts(write(b"\xef\xbb\xbf!ARTICLE\nA")) == ["A"]


def test_other_text_is_one_article_as_it_stands(write):
    assert texts(write("\nOnce  upon\r\na time\n!ARTICLE\n")) == ["\nOnce  upon\na time\n!ARTICLE"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_tables(write, suffix):
    def pack(text):
        return gzip.compress(text.encode()) if suffix else text

    long = "word " * 50_000
    rows = [{"id": 7, "text": " a\tb\n", "n": 1}, {"id": "x", "text": long}, {"text": ""}]
    lines = "\n".join(json.dumps(row) for row in rows)
    expected = [Article(" a\tb\n", "7"), Article(long, "x"), Article("")]
    assert read_articles(write(pack(lines), f"a.jsonl{suffix}")) == expected
    comma = f'who,what\n7," a\tb\n"\nx,"{long}"\n,""\n'
    form = InputFormat(text_field="what", id_field="who")
    assert read_articles(write(pack(comma), f"a.csv{suffix}"), form) == expected
    assert texts(write(pack("text\tid\nA\t1\n"), f"a.tsv{suffix}")) == ["A"]


def test_folder(write, tmp_path):
    for name, content in {
        "b.txt": "Plain.\n",
        "a.txt.gz": gzip.compress(b"!ARTICLE\nOne\n!ARTICLE\nTwo"),
        "c.jsonl": '{"text": "Three", "id": "t"}\n{"text": "Four"}',
        ".hidden": "no",
    }.items():
        write(content, name)
    (tmp_path / "folder").mkdir()
    assert read_articles(tmp_path) == [
        Article("One", "a.txt.gz"),
        Article("Two", "a.txt.gz"),
        Article("Plain.", "b.txt"),
        Article("Three", "t"),
        Article("Four", "c.jsonl"),
    ]


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b'{"text": "Hello"}')))
    assert texts("-", name="jsonl") == ["Hello"]


def test_format_by_name(write):
    assert texts(write("text\nA,B\n", "a.txt"), name="tsv") == ["A,B"]
    assert texts(write('{"text": "A"}', "a.jsonl"), name="text") == ['{"text": "A"}']


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b.txt", "b"), ("b.c.jsonl.gz", "b.c"), ("folder", "folder"), ("-", "stdin")]
)
def test_corpus_name(name, expected, tmp_path):
    assert corpus_name(tmp_path / name if name != "-" else type(tmp_path)("-")) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"!ARTICLE\ncaf\xe9", r"a.txt is not UTF-8: invalid byte at offset 12"),
        ("a.txt", "", "a.txt has no text"),
        ("a.txt", " \n\n", "has no text"),
        ("a.txt", "!ARTICLE\n\n!ARTICLE\n", "has no text"),
        ("a.gz", b"plain", "a.gz is truncated or no gzip file"),
        ("a.gz", gzip.compress(b"text" * 99)[:-9], "a.gz is truncated or no gzip file"),
        ("a.csv", "id,body\n1,A\n", r"a.csv, line 2 has no text in 'text': it has id, body; .* --text-field"),
        ("a.csv", "id,text\n1\n", r"a.csv, line 2 has no text in 'text'"),
        ("a.jsonl", '{"text": 3}', r"a.jsonl, line 1 has no text in 'text': it has text"),
        ("a.jsonl", "{", r"a.jsonl, line 1 is not JSON"),
        ("a.jsonl", '{"text": " "}', "has no text"),
    ],
)
def test_bad_corpus(write, name, content, message):
    with pytest.raises(ValueError, match=message):
        read_articles(write(content, name))


def test_missing_corpus(tmp_path):
    with pytest.raises(ValueError, match=r"can't read .*nothing.txt: No such file"):
        read_articles(tmp_path / "nothing.txt")
    with pytest.raises(ValueError, match="has no text"):
        read_articles(tmp_path)
