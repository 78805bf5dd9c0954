"""`decomp context`: the command, its table, and what is shown of it."""

import json
from pathlib import Path

import pytest

import decomp
from decomp.report.contexts import finest, lines_of
from decomp.report.texts import texts_of
from tests.commands import table
from tests.measures.test_contexts import ITEM


@pytest.fixture
def items(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"id": "vase", **ITEM}) + "\n")
    return path


@pytest.fixture(scope="module")
def scored():
    return decomp.context([{"id": "vase", **ITEM}], "demo-opt", refine=2)


def test_the_command_writes_the_table_of_the_function(done, items, scored):
    rows = table(done("context", items, "demo-opt", "--refine", 2))
    assert list(rows[0]) == list(scored.columns)
    assert [row["segment"] for row in rows] == list(scored["segment"])
    for row, own in zip(rows, scored, strict=True):
        assert float(row["score"]) == pytest.approx(own.score, abs=1e-4)
        assert float(row["log2_prob"]) - float(row["score"]) == pytest.approx(float(row["log2_prob_without"]))


def test_what_is_no_segment_is_shown_and_not_ranked(scored):
    first = [row for row in scored if row.part == "answer" and row.level == "segment"]
    assert [(row.segment, row.rank is None) for row in first] == [
        ("</s>", True),
        ("letter", False),
        ("<template>", True),
        ("diary", False),
        ("question", True),
        ("<own>", True),
    ]
    assert sorted(row.rank for row in first if row.rank) == [1, 2]
    ranked = sorted((row for row in first if row.rank), key=lambda row: row.rank)
    assert ranked[0].score >= ranked[1].score
    assert [row.source_position for row in first][:3] == [-1, 0, None]
    assert {row.part for row in scored} == {"answer", "sentence 1", "sentence 2"}


def test_the_model_writes_what_is_not_given(done, items):
    items.write_text(json.dumps({"segments": ITEM["segments"]}) + "\n")
    rows = table(done("context", items, "demo-opt", "--max-new-tokens", 5))
    (answer,) = {row["token"] for row in rows if row["part"] == "answer"}
    assert answer
    (length,) = {int(row["distance"]) for row in rows if row["segment"] == "question" and row["part"] == "answer"}
    assert length == int(next(row["source_length"] for row in rows if row["segment"] == "question"))


def test_bad_items_lose_nothing(run, items):
    Path("out.tsv").write_text("kept")
    items.write_text(json.dumps(ITEM) + "\n" + '{"segments": []}\n')
    result = run("context", items, "demo-opt", "-o", "out.tsv", "--overwrite")
    assert result.exit_code == 2
    assert "items.jsonl, line 2: segments must be a list of objects, it is []" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert Path("out.tsv").read_text() == "kept"


def test_settings_that_mean_nothing_are_refused():
    for settings, line in [
        ({"refine": 3}, "refine must be 0, 1"),
        ({"refine_top": 0}, "refine_top must be at least 1"),
        ({"decomposition_length": 3}, "segments are all kept"),
        ({"measures": "attention"}, "does not add up to that of an answer"),
    ]:
        with pytest.raises(ValueError, match=line):
            decomp.context([ITEM], "demo-opt", **settings)


def test_a_terminal_has_the_segments_in_order_of_rank(scored):
    lines = list(lines_of(scored))
    assert lines[0].startswith("vase, answer, delta_lp: It is in the vase. We read.  (log2 probability -")
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert lines[3].split()[1:] == ["</s>"]


@pytest.mark.parametrize("suffix", ["tsv", "parquet"])
def test_show_has_the_same_list(done, scored, tmp_path, suffix):
    several = decomp.context([{"id": "vase", **ITEM}], "demo-opt", ("delta_lp", "input_x_gradient"))
    for name, found in (("one", scored), ("two", several)):
        found.save(tmp_path / f"{name}.{suffix}")
        assert done("show", tmp_path / f"{name}.{suffix}").splitlines() == list(lines_of(found))
    chosen = done("show", tmp_path / f"two.{suffix}", "--measure", "input_x_gradient").splitlines()
    assert [line for line in chosen if line.startswith("vase")] == [
        line for line in lines_of(several) if line.startswith("vase") and "input_x_gradient" in line
    ]
    assert "rests on" not in done("show", tmp_path / f"one.{suffix}", "--target", "last")


def test_the_page_has_every_stretch_of_text_once(scored):
    (text,) = texts_of(scored)
    shown = [piece.strip() for piece in text.pieces]
    assert "".join("".join(shown[1:]).split()) == "".join(
        "".join([*(segment["text"] for segment in ITEM["segments"]), ITEM["answer"]]).split()
    )
    assert text.segments[len(shown) - 2] == "sentence 1"
    assert text.segments[len(shown) - 3] == "question"
    assert set(text.extra) == {"<template>", "<own>"}
    assert set(finest(scored)["part"]) == {"sentence 1", "sentence 2"}
