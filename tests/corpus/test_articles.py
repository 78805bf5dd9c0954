"""Corpora in all the forms that people bring."""

import gzip
import io
import json
import logging
from types import SimpleNamespace

import pytest

from decomp.corpus.article import Article
from decomp.corpus.articles import InputFormat, corpus_name, read_articles


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
    assert texts(write("\nOnce  upon\r\na time!\nARTICLE\n")) == ["\nOnce  upon\na time!\nARTICLE"]


def test_a_title_after_the_marker_is_the_id(write, caplog):
    path = write("!ARTICLE 1\nOne\n!ARTICLE\nTwo\n  !ARTICLE \t The Boar \nThree\n!ARTICLE")
    assert read_articles(path) == [Article("One", "1"), Article("Two"), Article("Three", "The Boar"), Article("")]
    assert caplog.messages == []


def test_text_before_the_first_marker_is_an_article(write, caplog):
    path = write("\nA preface\nof two lines.\n\n!ARTICLE\nOne\n!ARTICLE x\nTwo")
    assert read_articles(path) == [Article("A preface of two lines."), Article("One"), Article("Two", "x")]
    (message,) = caplog.messages
    assert message == f"{path} has text before its first line !ARTICLE: it is read as an article of its own"


@pytest.mark.parametrize("line", ["!article", "!Article 3", "! ARTICLE", "!ARTICLES", "!ARTICLE: x", "!ARTICLE1"])
def test_what_looks_like_a_marker_and_is_none(write, line, caplog):
    path = write(f"!ARTICLE\nOne\n {line}\nTwo\n{line}")
    assert texts(path) == [f"One {line} Two {line}"]
    (message,) = caplog.messages
    assert message.startswith(f"{path}, line 3 (and 1 more), {line!r}, is read as text: articles are set apart by")
    caplog.clear()
    assert texts(write(f"{line}\nOne")) == [f"{line}\nOne"]
    assert len(caplog.messages) == 1


def test_warnings_are_one_line_on_stderr(write, run, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own
    path = write("!article\nOne word.")
    assert "!article" not in run("score", path, "demo-gpt2", "--quiet").stderr
    result = run("score", path, "demo-gpt2")
    (line,) = [line for line in result.stderr.splitlines() if "!article" in line]
    assert line.startswith(f"{path}, line 1, '!article', is read as text")


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
        "a.txt.gz": gzip.compress(b"!ARTICLE\nOne\n!ARTICLE\nTwo", mtime=0),
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
        ("a.gz", gzip.compress(b"text" * 99, mtime=0)[:-9], "a.gz is truncated or no gzip file"),
        ("a.csv", "id,body\n1,A\n", r"a.csv, line 2 has no text in 'text': it has id, body; .* --text-field"),
        ("a.csv", "id,text\n1\n", r"a.csv, line 2 has no text in 'text'"),
        ("a.jsonl", '{"text": 3}', r"a.jsonl, line 1 has no text in 'text': it has text"),
        ("a.jsonl", "{", r"a.jsonl, line 1 is not JSON"),
        ("a.jsonl", '{"text": " "}', "has no text"),
        (
            "a.jsonl",
            '{"text": "a", "id": {"n": 1}}',
            r"a.jsonl, line 1: the id must be text or a number, it is \{'n': 1\}",
        ),
        ("a.jsonl", '{"text": "a \\ud83d"}', r"a.jsonl, line 1 has \\ud83d, half of a surrogate pair"),
        (
            "a.csv",
            "id,text\n1,To be, or not\n",
            r"a.csv, line 2 has 3 fields, the table has 2 columns: .* ',' in quotes",
        ),
        ("a.csv", "text,text\nA,B\n", r"a.csv has two columns 'text': rename one"),
        ("a.gz", gzip.compress(b"!ARTICLE\n", mtime=0) + b"\0" * 3, "no text"),
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


def test_half_of_a_surrogate_pair():
    """As the command line gives what is not UTF-8."""
    with pytest.raises(ValueError, match=r"the text has \\udcff, half of a surrogate pair: it is no Unicode text"):
        Article(b"caf\xff".decode("utf-8", "surrogateescape"))
