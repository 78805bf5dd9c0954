"""Tables say how they were made, and what reads them checks it."""

import csv
import gzip
import json
import logging
from pathlib import Path

import pytest

from decomp.tables.columns import COLUMNS
from decomp.tables.files import FORMAT_NAMES, check_table, open_table, table_file
from decomp.tables.provenance import check_alike, check_same, made_together, provenance_path, read_provenance
from tests.commands import CORPUS, MODEL, refused
from tests.tables.test_files import row

MADE = {"command": "score", "model": {"model": "m", "weights": "abc"}, "options": {"bos": True, "measures": ["a"]}}


def write(path, made=MADE):
    with table_file(path, path.suffix[1:], COLUMNS, made) as writer:
        writer([row("#", "a#b")])
    return path


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_comes_back(tmp_path, name):
    path = write(tmp_path / f"a.{name}")
    assert read_provenance(path) == open_table(path).made() == MADE
    assert list(open_table(path).rows()) == [row("#", "a#b")]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [f"a.{name}"] + ([] if name == "parquet" else [f"a.{name}.meta.json"])
    )


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_nothing_is_known(tmp_path, name):
    path = write(tmp_path / f"a.{name}")
    write(path, None)
    assert read_provenance(path) is None


def test_packed(tmp_path):
    path = write(tmp_path / "a.tsv")
    packed = tmp_path / "a.tsv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_provenance(packed) == MADE


def test_a_changed_table_and_a_damaged_account_are_refused(tmp_path):
    path = write(tmp_path / "a.tsv")
    path.write_text(path.read_text("utf-8").replace("1.5", "2.5"), "utf-8")
    with pytest.raises(ValueError, match=r"a.tsv has changed since .*a.tsv.meta.json was written"):
        read_provenance(path)
    beside = provenance_path(path)
    entry = json.loads(beside.read_text("utf-8"))
    beside.write_text(json.dumps({**entry, "version": 2}), "utf-8")
    with pytest.raises(ValueError, match=r"has version 2, this package reads up to 1: upgrade it"):
        read_provenance(path)
    for content in ("{", "[]", "[" * 10**5):
        beside.write_text(content, "utf-8")
        with pytest.raises(ValueError, match=r"a.tsv.meta.json is damaged: remove it"):
            read_provenance(path)


def test_what_is_no_account_of_a_table_is_not_replaced(tmp_path):
    path = tmp_path / "a.tsv"
    write(path)
    path.unlink()
    check_table(path, None)
    provenance_path(path).write_text("precious")
    with pytest.raises(ValueError, match=r"a.tsv.meta.json exists"):
        check_table(path, None)


def test_check_same(caplog):
    table = Path("a.tsv")
    check_same(table, MADE, {"model": {"weights": "abc"}, "options": {"bos": True}})
    with pytest.raises(ValueError, match=r'a.tsv .*model.weights: "abc" in the table, "f" expected; options.bos: true'):
        check_same(table, MADE, {"model": {"weights": "f"}, "options": {"bos": False, "measures": ("a",)}})
    assert not caplog.records
    check_same(table, None, {"options": {}})
    assert "a.tsv does not say how it was made" in caplog.text


def test_check_alike(caplog):
    a, b = Path("a.tsv"), Path("b.tsv")
    other = {**MADE, "torch": "9", "options": {"bos": True, "measures": ["b"], "memory": "1MiB"}}
    check_alike([(a, MADE), (b, other)])
    assert made_together([MADE, other], {})["options"]["measures"] == ["a", "b"]
    with pytest.raises(ValueError, match=r'model.model: "m" in a.tsv, "n" in b.tsv.*--mixed'):
        check_alike([(a, MADE), (b, {**MADE, "model": {"model": "n", "weights": "abc"}})])
    with caplog.at_level(logging.WARNING):
        check_alike([(a, MADE), (b, None)])
    assert "b.tsv does not say" in caplog.text
    assert made_together([MADE, None], {}) is None


def test_tables_of_two_models_are_merged_on_request_only(run, done, tmp_path):
    done("score", CORPUS, MODEL, "-o", "a.tsv", "--decomposition-length", 3)
    done("score", CORPUS, MODEL, "-o", "b.parquet", "--measure", "attention", "--decomposition-length", 3)
    done("score", CORPUS, MODEL, "-o", "c.tsv", "--measure", "attention", "--no-bos", "--decomposition-length", 3)
    done("table", "a.tsv", "b.parquet", "-o", "ab.csv", "--top", 2)
    made = read_provenance(tmp_path / "ab.csv")
    assert made["options"]["measures"] == ["delta_lp", "attention"]
    assert made["table"] == {"top": 2}
    assert made["model"]["weights"] == read_provenance(tmp_path / "a.tsv")["model"]["weights"]
    assert "options.bos: true in a.tsv, false in c.tsv" in refused(run("table", "a.tsv", "c.tsv"))
    done("table", "a.tsv", "c.tsv", "--mixed", "-o", "ac.tsv")
    assert len(read_provenance(tmp_path / "ac.tsv")["tables"]) == 2


def test_a_run_s_table_says_what_the_plain_one_says(done, tmp_path):
    done("score", CORPUS, MODEL, "-o", "plain.tsv")
    done("score", CORPUS, MODEL, "--run", "run", "-o", "table.tsv")
    done("table", "run", "-o", "again.tsv")
    made = read_provenance(tmp_path / "plain.tsv")
    assert made == read_provenance(tmp_path / "table.tsv") == read_provenance(tmp_path / "again.tsv")
    assert made["command"] == "score"
    assert made["options"]["measures"] == ["delta_lp"]
    with (tmp_path / "plain.tsv").open(encoding="utf-8", newline="") as file:
        assert len(next(csv.reader(file, delimiter="\t"))) > len(COLUMNS)
