"""Tables in memory: columns, rows, matrices, files, and what other libraries make of them."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import decomp
from decomp.tables.table import Table
from tests.commands import CORPUS, MODEL

COLUMNS = ("article", "window", "position", "source_position", "source_token", "distance", "measure", "score")
ROWS = [
    (0, 0, 1, -1, "</s>", 2, "a", 0.5),
    (0, 0, 1, 0, "The", 1, "a", -1.5),
    (0, 0, 1, None, "<bias>", None, "a", 2.0),
    (0, 0, 2, 0, "The", 2, "a", 0.0),
    (0, 0, 2, 1, "Ġcat", 1, "a", 3.0),
    (0, 0, 1, 0, "The", 1, "b", None),
]


@pytest.fixture
def small():
    return Table.from_rows(COLUMNS, ROWS, {"model": "m"})


@pytest.fixture(scope="module")
def pair():
    return decomp.load_model(MODEL)


@pytest.fixture(scope="module")
def scored(pair):
    return decomp.score(Path(CORPUS), pair, ("delta_lp", "attention"), decomposition_length=5, extra=True)


def test_columns(small):
    assert small.columns == COLUMNS
    assert len(small) == 6
    assert small["score"].dtype == np.float64
    assert_array_equal(small["score"], [0.5, -1.5, 2, 0, 3, np.nan])
    assert small["distance"].tolist() == [2, 1, None, 2, 1, 1]
    assert not isinstance(small["position"], np.ma.MaskedArray)
    assert list(small["source_token"]) == ["</s>", "The", "<bias>", "The", "Ġcat", "The"]
    with pytest.raises(ValueError, match=r"the table has no column 'scores': did you mean score\?"):
        small["scores"]
    with pytest.raises(ValueError, match="the table has no column 'colour': it has article, window"):
        small["colour"]


def test_rows_come_back(small):
    assert [tuple(row) for row in small] == ROWS
    assert next(iter(small)).source_token == "</s>"


def test_blocks_make_one_column(monkeypatch):
    monkeypatch.setattr("decomp.tables.blocks.BLOCK", 2)
    many = Table.from_rows(COLUMNS, iter(ROWS))
    assert [tuple(row) for row in many] == ROWS


def test_large_integers_and_truth_values():
    rows = [(2**40, True, "x"), (1, False, None)]
    table = Table.from_rows(("number", "is_so", "name"), rows)
    assert [tuple(row) for row in table] == rows
    assert table["is_so"].dtype == bool


def test_without_rows():
    empty = Table.from_rows(COLUMNS, [])
    assert (len(empty), list(empty), empty.measures()) == (0, [], [])
    assert empty.columns == COLUMNS
    assert len(empty.to_pandas()) == len(empty.to_arrow()) == 0


def test_repr_is_a_short_line(scored):
    assert repr(scored).startswith(f"Table({len(scored):,} rows of delta_lp, attention; columns ")
    assert "\n" not in repr(scored)


def test_select(small):
    assert list(small.select(measure="a", distance=1)["score"]) == [-1.5, 3]
    assert len(small.select(measure="c")) == len(small.select(distance=9)) == 0
    assert small.select(measure="a").select(article=np.int32(0)).about == {
        "model": "m",
        "table": {"measure": "a", "article": 0},
    }
    with pytest.raises(ValueError, match="no column 'word'"):
        small.select(word=1)


def test_matrix_by_hand(small):
    assert_array_equal(small.matrix(measure="a"), [[0.5, -1.5, np.nan], [np.nan, 0.0, 3.0]])
    with pytest.raises(ValueError, match="the table has 2 measures: choose one of a, b"):
        small.matrix()
    with pytest.raises(ValueError, match="no scores of article 3, window 0, measure 'a'"):
        small.matrix(article=3, measure="a")


def test_matrix_is_the_model_s(pair, scored):
    model, tokenizer = pair
    (window,) = decomp.windows_of(decomp.read_articles(CORPUS), tokenizer, model.config)
    expected = model.decompose(window.ids, decomposition_length=5).delta_lp().double().numpy()
    matrix = scored.matrix(measure="delta_lp")
    kept = ~np.isnan(matrix)
    targets, sources = np.indices(matrix.shape)
    assert_array_equal(kept, (sources <= targets) & (sources > targets - 5))
    np.testing.assert_allclose(matrix[kept], expected[:, :-1][kept], rtol=0, atol=1e-5)


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "parquet"])
def test_saved_and_loaded(scored, tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    scored.save(path)
    assert [tuple(row) for row in decomp.load_table(path)] == [tuple(row) for row in scored]
    with pytest.raises(ValueError, match=r"table.\w+ exists: give --overwrite \(overwrite=True\)"):
        scored.save(path)
    scored.save(str(path), overwrite=True)


def test_saved_is_what_the_command_writes(scored, done, tmp_path):
    options = ("--measure", "delta_lp", "--measure", "attention", "--decomposition-length", 5, "--extra-rows")
    done("score", CORPUS, MODEL, *options, "-o", "command.tsv", "-q")
    scored.save(tmp_path / "python.tsv")
    assert Path("python.tsv").read_bytes() == Path("command.tsv").read_bytes()


def test_a_table_that_can_not_be_written_leaves_nothing(small, tmp_path):
    with pytest.raises(ValueError, match=r"\.xlsx is no format of a table"):
        small.save(tmp_path / "table.xlsx")
    with pytest.raises(ValueError, match="can't write into"):
        small.save(tmp_path / "no" / "table.tsv")
    assert list(tmp_path.iterdir()) == []


def test_loading_what_is_no_table(tmp_path):
    with pytest.raises(ValueError, match=r"can't read .*none\.tsv: No such file"):
        decomp.load_table(tmp_path / "none.tsv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv lacks the columns article, window"):
        decomp.load_table(str(tmp_path / "other.csv"))


def test_pandas(small):
    frame = small.to_pandas()
    assert list(frame.columns) == list(COLUMNS)
    assert frame.groupby("measure", observed=True)["score"].sum().to_dict() == {"a": 4.0, "b": 0.0}
    assert frame["distance"].isna().tolist() == [False, False, True, False, False, False]
    assert str(frame["distance"].dtype) == "Int64"
    assert frame["source_token"].tolist() == [row[4] for row in ROWS]


def test_arrow(small):
    table = small.to_arrow()
    assert table.column_names == list(COLUMNS)
    assert [tuple(row.values()) for row in table.to_pylist()] == ROWS


def test_without_pandas(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match=r"needs pandas: pip install 'tokenwise-decomposition\["):
        small.to_pandas()


def test_missing_numbers_are_none_in_rows(small):
    assert [row.score for row in small][-1] is None
    assert math.isnan(small["score"][-1])
