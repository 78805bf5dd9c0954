"""Tables made smaller as they are written: what stays, and the sum of what goes."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import decomp
from decomp.tables.blocks import block_of, concatenate, length, rows_of, take
from decomp.tables.columns import COLUMNS
from decomp.tables.reduction import DROPPED, OF_SOURCES, Reduction, first_rows, whole_targets
from tests.commands import CORPUS, MODEL, table

SCORES = {
    **{(5, -1): 9.0, (5, 0): 0.5, (5, 1): -4.0, (5, 2): 3.0, (5, 4): 1.0, (5, None): -1.5},
    **{(6, 3): 0.0, (6, None): 0.25},
}
"""By position and source: -1 is the beginning of the sequence, None what is no token."""


def row(position, source, score, measure="m", text="s"):
    token = "<bias>" if source is None else f"{text}{source}"
    distance = None if source is None else position - source
    return (0, 0, position, "t", source, token, distance, -2.25, measure, score)


BLOCK = block_of(COLUMNS, [row(*place, score) for place, score in SCORES.items()])


def kept(block):
    """Source positions of each target; how many sources were dropped, and their sum, in its last row."""
    names = list(block)
    rows = [dict(zip(names, values, strict=True)) for values in rows_of(block)]
    return [
        [(r["dropped"], r["score"]) if r["source_token"] == DROPPED else r["source_position"] for r in group]
        for _, group in itertools.groupby(rows, lambda r: r["position"])
    ]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"max_distance": 3}, [[-1, 2, 4, None, (2, -3.5)], [3, None]]),
        ({"min_distance": 4}, [[-1, 0, 1, None, (2, 4.0)], [None, (1, 0.0)]]),
        ({"min_abs": 1.0}, [[-1, 1, 2, 4, None, (1, 0.5)], [None, (1, 0.0)]]),
        ({"top": 2}, [[-1, 2, 4, None, (2, -3.5)], [3, None]]),
        ({"top": 1, "min_abs": 3.5}, [[-1, 1, None, (3, 4.5)], [None, (1, 0.0)]]),
        ({"top": 1, "max_distance": 1, "min_distance": 1}, [[-1, 4, None, (3, -0.5)], [None, (1, 0.0)]]),
    ],
)
def test_what_stays(asked, expected):
    reduced = Reduction(**asked)(BLOCK)
    assert kept(reduced) == expected
    assert list(reduced) == ["dropped", *COLUMNS] == list(Reduction(**asked).columns(COLUMNS))


def test_ties_go_to_the_earlier_source():
    block = block_of(COLUMNS, [row(3, source, 1.0) for source in range(3)])
    assert kept(Reduction(top=2)(block)) == [[0, 1, (1, 1.0)]]


def test_nothing_asked_changes_nothing():
    assert Reduction()(BLOCK) is BLOCK
    assert Reduction().columns(COLUMNS) == COLUMNS
    everything = Reduction(top=99)(BLOCK)
    assert length(everything) == length(BLOCK)
    assert everything["dropped"].mask.all()


@pytest.mark.parametrize("steps", [({"top": 2}, {"top": 1}), ({"min_abs": 0.7}, {"max_distance": 2}, {"top": 1})])
def test_reduced_twice_is_reduced_once(steps):
    """The row of what was dropped before takes in what is dropped now."""
    once = Reduction(**{name: value for step in steps for name, value in step.items()})(BLOCK)
    twice = BLOCK
    for step in steps:
        twice = Reduction(**step)(twice)
    assert list(rows_of(twice)) == list(rows_of(once))


def test_targets_and_measures_are_apart():
    rows = [row(p, s, 1.0, measure) for measure in "ab" for p in (2, 3) for s in range(p)]
    reduced = Reduction(top=1)(block_of(COLUMNS, rows))
    assert [n for n in np.ma.filled(reduced["dropped"], 0) if n] == [1, 2, 1, 2]


def test_columns_of_sources_are_empty_in_the_row_of_what_is_dropped():
    columns = ("word", "source_word", "source_length", *COLUMNS)
    block = block_of(columns, [(7, source, 4, *row(5, source, 1.0)) for source in range(3)])
    *_, last = rows_of(Reduction(top=1)(block))
    values = dict(zip(["dropped", *columns], last, strict=True))
    assert {name: values[name] for name in OF_SOURCES} == {
        **{"source_word": None, "source_length": None, "source_position": None, "distance": None},
        **{"source_token": DROPPED, "score": 2.0, "dropped": 2},
    }
    assert (values["word"], values["position"], values["log2_prob"]) == (7, 5, -2.25)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
def test_targets_stay_whole_however_blocks_are_cut(size):
    pieces = [take(BLOCK, slice(start, start + size)) for start in range(0, length(BLOCK), size)]
    whole = list(whole_targets(pieces))
    assert list(rows_of(concatenate(whole))) == list(rows_of(BLOCK))
    assert sum(int(first_rows(block).sum()) for block in whole) == 2
    assert list(whole_targets([])) == []


def test_digits():
    block = block_of(COLUMNS, [row(1, 0, -0.0004), row(1, None, 1.23456)])
    for kind in (np.float32, np.float64):
        short = Reduction(digits=2)({**block, "score": block["score"].astype(kind)})
        assert short["score"].dtype == kind
        assert [values[-1] for values in rows_of(short)] == [0.0, 1.23]
        assert not np.signbit(short["score"]).any()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"top": 0}, "top must be at least 1, not 0"),
        ({"top": 1.5}, "top must be at least 1, not 1.5"),
        ({"max_distance": -1}, "max_distance must be at least 1, not -1"),
        ({"min_abs": -0.1}, "min_abs must be a finite number from 0, not -0.1"),
        ({"min_abs": math.nan}, "min_abs must be a finite number from 0, not nan"),
        ({"min_abs": math.inf}, "min_abs must be a finite number from 0, not inf"),
        ({"digits": 16}, "digits must be from 0 to 15, not 16"),
        ({"min_distance": 3, "max_distance": 2}, "no source is at least 3 and at most 2 back"),
    ],
)
def test_what_keeps_nothing_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        Reduction(**asked)


REDUCED = ("--top", 2, "--min-abs", 0.05, "--min-distance", 2, "--max-distance", 6, "--digits", 4)


def test_reduced_while_writing_is_reduced_afterwards(done):
    measures = ("--measure", "delta_lp", "--measure", "decomposed_logit", "--extra-rows")
    done("score", CORPUS, MODEL, *measures, "-o", "whole.parquet")
    done("table", "whole.parquet", *REDUCED, "-o", "after.tsv")
    done("score", CORPUS, MODEL, *measures, *REDUCED, "-o", "while.tsv")
    assert Path("while.tsv").read_bytes() == Path("after.tsv").read_bytes()
    done("score", CORPUS, MODEL, *measures, *REDUCED, "--run", "run", "-o", "run.tsv")
    assert Path("run.tsv").read_bytes() == Path("after.tsv").read_bytes()
    done("decompose", CORPUS, MODEL, 9)
    done("deltalp", "golden_opt-tiny-pre", MODEL, *REDUCED, "-o", "stored.tsv")
    some = [r for r in table(Path("while.tsv").read_text("utf-8")) if r["measure"] == "delta_lp"]
    stored = table(Path("stored.tsv").read_text("utf-8"))
    assert {r["source_token"] for r in stored} > {DROPPED}
    assert stored[0].keys() == some[0].keys()


def test_sums_still_tell_the_truth(done):
    whole = table(done("score", CORPUS, MODEL, "--measure", "decomposed_logit", "--extra-rows", "--dtype", "float64"))
    few = table(
        done("score", CORPUS, MODEL, "--measure", "decomposed_logit", "--extra-rows", "--dtype", "float64", "--top", 1)
    )
    assert len(few) < len(whole) / 2
    by_position = [{}, {}]
    for sums, rows in zip(by_position, (whole, few), strict=True):
        for r in rows:
            sums[r["position"]] = sums.get(r["position"], 0.0) + float(r["score"])
    assert by_position[0].keys() == by_position[1].keys()
    np.testing.assert_allclose(list(by_position[1].values()), list(by_position[0].values()), rtol=0, atol=1e-12)


def test_in_python():
    pair = decomp.load_model(MODEL)
    whole = decomp.score(Path(CORPUS), pair)
    few = decomp.score(Path(CORPUS), pair, top=1, digits=3)
    assert few.columns == ("dropped", *whole.columns)
    assert_array_equal(np.unique(few["position"]), np.unique(whole["position"]))
    dropped = few.select(source_token=DROPPED)
    assert dropped["dropped"].sum() + len(few) - len(dropped) == len(whole)
    assert few.about["options"]["top"] == 1
    item = decomp.contrast("The keys to the cabinet", "were", "was", pair, top=1)
    assert DROPPED in item["source_token"]
    with pytest.raises(ValueError, match="top must be at least 1"):
        decomp.score(Path(CORPUS), pair, top=0)


def test_commands_refuse(run):
    Path("t.tsv").touch()
    for options, said in (
        (("--top", 0), "0 is not in the range"),
        (("--digits", "x"), "'x' is not a valid integer"),
        (("--min-abs", "nan"), "min_abs must be a finite number from 0, not nan"),
        (("--min-distance", 3, "--max-distance", 2), "no source is at least 3 and at most 2 back"),
    ):
        for command in (("score", CORPUS, MODEL), ("table", "t.tsv"), ("deltalp", "x", MODEL)):
            result = run(*command, *options, "-o", "out.tsv")
            assert result.exit_code == 2
            assert said in result.stderr
            assert "Traceback" not in result.stderr
    assert not Path("out.tsv").exists()
    result = run("deltalp", "x", MODEL, "--top", 2)
    assert "the text format has all rows: give --format tsv" in result.stderr
