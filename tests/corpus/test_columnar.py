"""Corpora, items and word lists in Parquet and Arrow files, and folders that the library `datasets` saved."""

import json

import pyarrow
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest

from decomp.corpus.article import Article
from decomp.corpus.articles import InputFormat, read_articles
from decomp.corpus.contrast_items import read_items
from decomp.corpus.word_lists import with_words

TABLE = pyarrow.table({"text": ["A cat.", "Sat\nthere, so."], "id": ["a", "b"], "n": [1, 2]})
ARTICLES = [Article("A cat.", "a"), Article("Sat\nthere, so.", "b")]


def write_stream(table, path):
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, 1)


def write_file(table, path):
    pyarrow.feather.write_feather(table, str(path), compression="uncompressed")


WRITERS = {"a.parquet": pyarrow.parquet.write_table, "a.arrow": write_file, "stream.arrow": write_stream}


@pytest.mark.parametrize("name", WRITERS)
def test_articles(tmp_path, name):
    WRITERS[name](TABLE, tmp_path / name)
    assert read_articles(tmp_path / name) == ARTICLES
    assert read_articles(tmp_path / name, InputFormat(text_field="id", id_field="n")) == [
        Article("a", "1"),
        Article("b", "2"),
    ]
    with pytest.raises(ValueError, match=rf"{name}, row 1 has no text in 'body': it has text, id, n"):
        read_articles(tmp_path / name, InputFormat(text_field="body"))
    WRITERS[name](TABLE.select(["text"]), tmp_path / f"other.{name}")
    assert [article.id for article in read_articles(tmp_path / f"other.{name}")] == ["", ""]


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_no_such_file(tmp_path, name):
    WRITERS[name](TABLE, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for number, damaged in enumerate((b"", b"text", content[: len(content) // 2], content[:8])):
        path = tmp_path / f"{number}.{name}"
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{number}\.{name} (is truncated or no|has no text)"):
            read_articles(path)
    with pytest.raises(ValueError, match=r"can't read .*none"):
        read_articles(tmp_path / f"none.{name}")


def test_other_kinds_of_columns(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": [3, 4]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="row 1 has no text in 'text'"):
        read_articles(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "id": [1.5]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"row 1: the id must be text or a number, it is 1.5"):
        read_articles(tmp_path / "b.parquet")


def test_large_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("decomp.io.records.LARGEST_FILE", 10)
    for name, write in WRITERS.items():
        write(TABLE, tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} has more than 10 B: split it"):
            read_articles(tmp_path / name)


def test_standard_input_is_text():
    with pytest.raises(ValueError, match="Parquet can't be read from standard input: give the file"):
        read_articles("-", InputFormat("parquet"))


@pytest.fixture
def saved(tmp_path):
    """A folder as `datasets` saves it: its files are in the order of its state."""
    folder = tmp_path / "saved"
    folder.mkdir()
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for number, name in enumerate(names):
        write_stream(TABLE.slice(number, 1), folder / name)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_data_sets(saved):
    assert read_articles(saved) == ARTICLES


def test_splits_have_to_be_chosen(saved):
    folder = saved.parent / "splits"
    folder.mkdir()
    saved.rename(folder / "train")
    (folder / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(ValueError, match=r"splits has the splits train: give one of them, such as .*train"):
        read_articles(folder)
    assert read_articles(folder / "train") == ARTICLES


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("{}", "names no files of a data set"),
        ("[", "is not JSON"),
        ('{"_data_files": [{"filename": "../other.arrow"}]}', "can't read .*saved/other.arrow"),
    ],
)
def test_damaged_data_sets(saved, state, message):
    (saved / "state.json").write_text(state)
    with pytest.raises(ValueError, match=message):
        read_articles(saved)


def test_items_and_words(tmp_path):
    items = pyarrow.table({"prompt": ["The keys"], "target": ["were"], "foil": ["was"]})
    pyarrow.parquet.write_table(items, tmp_path / "items.parquet")
    (item,) = read_items(tmp_path / "items.parquet")
    assert (item.prompt, item.target, item.foil) == ("The keys", "were", "was")
    words = pyarrow.table({"article": ["a", "a"], "word": ["A", "cat."]})
    write_file(words, tmp_path / "words.arrow")
    assert [a.words for a in with_words(tmp_path / "words.arrow", [ARTICLES[0]])] == [((0, 1), (2, 6))]
