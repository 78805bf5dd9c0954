"""`decomp edges` and `decomp edges check` as a person uses them."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import decomp
from decomp.locate.edges.prompts import read_prompts
from decomp.locate.edges.request import EdgeRequest
from decomp.locate.edges.scoring import score_edges
from tests.commands import refused, table
from tests.conftest import ROOT

PROMPTS = str(ROOT / "data" / "pronouns.json")
MODEL = "demo-gpt2"


@pytest.fixture(scope="module")
def model():
    return decomp.load_model(MODEL)


@pytest.fixture
def _two(done):
    """Two of the prompts, in the working folder."""
    prompts = json.loads(Path(PROMPTS).read_text("utf-8"))["prompts"][:2]
    Path("two.json").write_text(json.dumps({"prompts": prompts}))


def test_scores(done, model):
    rows = table(done("edges", PROMPTS, MODEL, "--mask-value", 0.5, "--grad-function", "logprob"))
    prompts = read_prompts(Path(PROMPTS), model[1], model[0].config)
    result = score_edges(model[0], prompts, EdgeRequest(mask_value=0.5, grad_function="logprob"))
    graph = result.graph
    assert len(rows) == graph.edges().sum() == 2188
    assert list(rows[0]) == ["source", "destination", "input", "score"]
    edges = graph.edge_indices().tolist()
    assert [(r["source"], r["destination"], r["input"]) for r in rows] == [
        (graph.sources[u], *graph.destinations[v]) for u, v in edges
    ]
    got = torch.tensor([float(r["score"]) for r in rows])
    assert_close(got, torch.stack([result.scores[u, v] for u, v in edges]), rtol=1e-4, atol=1e-5)
    assert len({(r["source"], r["destination"], r["input"]) for r in rows}) == len(rows)


def test_what_is_said_and_written_beside(run):
    options = ("--integrated-gradient-samples", 5, "--subgraph", "top.json", "--plot", "top.dot", "--top", 7)
    result = run("edges", PROMPTS, MODEL, "-o", "edges.tsv", *options)
    assert result.exit_code == 0, result.stderr
    assert "loss: L = -(mean logit of answers - mean logit of wrong answers)" in result.stderr
    assert "None" not in result.stderr
    assert "dL/dm, mean over prompts, mean over samples: positive where ablating the edge raises L" in result.stderr
    content = json.loads(Path("top.json").read_text("utf-8"))
    total = sum(float(row["score"]) for row in table(Path("edges.tsv").read_text("utf-8")))
    assert content["sum_of_scores"] == pytest.approx(total, abs=1e-4)
    assert content["residual"] == pytest.approx(total - (content["ablated_loss"] - content["clean_loss"]), abs=1e-4)
    assert (content["samples"], content["model"], content["prompts"]) == (5, MODEL, 8)
    ordered = sorted(table(Path("edges.tsv").read_text("utf-8")), key=lambda row: -abs(float(row["score"])))
    assert [{k: str(v) for k, v in edge.items()} for edge in content["edges"]] == ordered[:7]
    touched = {edge[end] for edge in content["edges"] for end in ("source", "destination")}
    assert set(content["nodes"]) == touched
    dot = Path("top.dot").read_text("utf-8")
    assert dot.startswith("digraph edges {")
    assert dot.count(" -> ") == 7
    assert f'"{content["edges"][0]["source"]}" -> "{content["edges"][0]["destination"]}"' in dot


def test_formats_and_methods(done):
    tsv = table(done("edges", "score", PROMPTS, MODEL, "--method", "eap_ig", "--integrated-gradient-samples", 1))
    patching = ("edges", PROMPTS, MODEL, "--mask-value", 0)
    jsonl = [json.loads(line) for line in done(*patching, "--format", "jsonl").splitlines()]
    comma = table(done(*patching, "--format", "csv", "--no-bos", "--ablation", "mean", "--memory", "3MiB"), ",")
    assert len(tsv) == len(jsonl) == len(comma)
    scores = [torch.tensor([float(row["score"]) for row in rows]) for rows in (tsv, jsonl)]
    assert_close(*scores, rtol=0, atol=1e-4)


def test_check(done, run):
    done("edges", PROMPTS, MODEL, "--integrated-gradient-samples", 5, "-o", "edges.tsv")
    arguments = ("edges", "check", "edges.tsv", PROMPTS, MODEL, "--keep", 100, "--keep", 20, "--random", 1)
    rows = table(done(*arguments))
    assert [(row["ranking"], row["edges"]) for row in rows] == [
        ("score", "0"),
        ("score", "20"),
        ("random 0", "20"),
        ("score", "100"),
        ("random 0", "100"),
        ("score", "2188"),
    ]
    remaining = [float(row["remaining"]) for row in rows]
    assert (remaining[0], remaining[-1]) == (0, 1)
    assert remaining[1] > 0.9
    assert abs(remaining[2]) < 0.01
    done(*arguments, "-o", "check.tsv")
    assert table(Path("check.tsv").read_text("utf-8")) == rows
    assert "check.tsv exists: give --overwrite" in refused(run(*arguments, "-o", "check.tsv"))
    counts = {row["edges"] for row in table(done("edges", "check", "edges.tsv", PROMPTS, MODEL, "--random", 0))}
    assert {"1", "2", "5", "1000", "2000"} < counts


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a9.h0\tlogits\tinput\t1", "edges.tsv, line 2: unknown node 'a9.h0': the model's are embedding, a0.h0, a0.h1"),
        ("embedding\tm9\tinput\t1", "edges.tsv, line 2: unknown node 'm9': the model's are "),
        ("m0\ta0.h1\tquery\t1", "line 2: the model has no edge from m0 to the query of a0.h1"),
        ("embedding\tm0\tquery\t1", "line 2: the model has no edge from embedding to the query of m0"),
        ("embedding\tm0\tinput\tbig", "line 2: score must be a number, it is 'big'"),
        ("embedding\tm0\tinput\tnan", "line 2: score must be a number, it is 'nan'"),
        (
            "embedding\tm0\tinput\t1\nembedding\tm0\tinput\t2",
            "line 3: the edge from embedding to the input of m0 is in line 2 too",
        ),
    ],
)
def test_check_refuses_edges_of_another_model(run, row, message):
    Path("edges.tsv").write_text(f"source\tdestination\tinput\tscore\n{row}\n")
    assert message in refused(run("edges", "check", "edges.tsv", PROMPTS, MODEL))


@pytest.mark.usefixtures("_two")
def test_check_refuses_what_was_made_otherwise(run, done):
    """Another model, other BOS, other ablation, other batches, another command."""
    means = ("--ablation", "batch_mean", "--batch-by")
    done("edges", "two.json", MODEL, "--mask-value", 0, "-o", "edges.tsv", *means, 2)
    check = ("edges", "check", "edges.tsv", "two.json")
    few = ("--keep", 5, "--random", 0)
    done(*check, MODEL, *few, *means, 2)
    for options, message in (
        ((MODEL, "--no-bos", *means, 2), "options.bos: true in the table, false expected"),
        ((MODEL,), 'options.ablation: "batch_mean" in the table, "resample" expected'),
        ((MODEL, *means, 2, "--clean-corrupt", "both"), 'options.side: "corrupt" in the table, "both" expected'),
        ((MODEL, *means, 1), 'options.batch_by: "2" in the table, "1" expected'),
        (("demo-opt", *means, 2), 'model.model: "demo-gpt2" in the table, "demo-opt" expected'),
    ):
        line = refused(run(*check, *options, *few))
        assert "edges.tsv was made otherwise" in line
        assert message in line
    done("neurons", ROOT / "data" / "facts.jsonl", MODEL, "--steps", 1, "-o", "neurons.tsv")
    assert 'command: "neurons find" in the table, "edges score" expected' in refused(
        run("edges", "check", "neurons.tsv", "two.json", MODEL)
    )


def test_a_table_without_an_account_is_taken_with_a_warning(run, caplog):
    assert check_of_one_edge(run, "--keep", 1, "--random", 0).exit_code == 0
    assert "edges.tsv does not say how it was made" in caplog.text


@pytest.mark.usefixtures("_two")
def test_parquet(done):
    done("edges", "two.json", MODEL, "--mask-value", 0, "-o", "edges.parquet")
    done("edges", "two.json", MODEL, "--mask-value", 0, "-o", "edges.tsv")
    few = ("two.json", MODEL, "--keep", 20, "--random", 0, "--circuit", "greedy")
    assert done("edges", "check", "edges.parquet", *few) == done("edges", "check", "edges.tsv", *few)
    (row,) = table(done("edges", "check", "edges.parquet", *few))[1:-1]
    assert int(row["kept"]) <= int(row["edges"]) == 20


@pytest.mark.usefixtures("_two")
def test_conventions(done):
    """One name for several options, which explicit ones override."""
    named = done("edges", "two.json", MODEL, "--convention", "eap")
    assert named == done("edges", "two.json", MODEL, "--mask-value", 0)
    samples = ("--integrated-gradient-samples", 2)
    ig = done("edges", "two.json", MODEL, "--convention", "eap-ig", *samples)
    assert ig == done("edges", "two.json", MODEL, "--method", "eap_ig", "--quadrature", "left", *samples)
    paper = done("edges", "two.json", MODEL, "--convention", "eap-ig", "--quadrature", "right", *samples)
    assert paper == done("edges", "two.json", MODEL, "--method", "eap_ig", *samples)
    sums = done("edges", "two.json", MODEL, "--convention", "auto-circuit", "--batch-by", 1, *samples)
    means = done("edges", "two.json", MODEL, *samples)
    # Two batches, three mask values.
    got, expected = (torch.tensor([float(row["score"]) for row in table(text)]) for text in (sums, means))
    assert_close(got, 6 * expected, rtol=1e-4, atol=1e-4)


def test_nothing_is_left_behind(run, monkeypatch):
    def fail(*_):
        raise ValueError("no picture")

    monkeypatch.setattr("decomp.report.circuits.draw", fail)
    options = ("--mask-value", 0, "-o", "edges.tsv", "--subgraph", "top.json", "--plot", "top.dot")
    assert "no picture" in refused(run("edges", PROMPTS, MODEL, *options))
    assert not Path("edges.tsv").exists()
    assert not Path("top.json").exists()
    assert "can't write into none" in refused(run("edges", PROMPTS, MODEL, "--mask-value", 0, "-o", "none/e.tsv"))


def test_tables_that_are_none(run):
    Path("bad.parquet").write_text("source")
    for name in ("none.parquet", "bad.parquet"):
        for arguments in (
            ("edges", "check", name, PROMPTS, MODEL),
            ("neurons", "check", "demo-facts.jsonl", MODEL, name),
        ):
            assert f"can't read {name}: " in refused(run(*arguments))


def test_refusals(run):
    assert "more than the memory of 1 KiB: give more (--memory)" in refused(
        run("edges", PROMPTS, MODEL, "--mask-value", 0, "--memory", "1KiB")
    )
    assert "exactly one of the two" in refused(run("edges", PROMPTS, MODEL))
    assert "exactly one of the two" in refused(
        run("edges", PROMPTS, MODEL, "--mask-value", 0, "--integrated-gradient-samples", 2)
    )
    assert "eap_ig interpolates inputs" in refused(
        run("edges", PROMPTS, MODEL, "--mask-value", 0, "--method", "eap_ig")
    )
    zero = (MODEL, "--mask-value", 0)
    assert "can't read none.json" in refused(run("edges", "none.json", *zero))
    assert "top.bmp must be .dot or a picture" in refused(run("edges", PROMPTS, *zero, "--plot", "top.bmp"))
    assert "can't keep 9999 edges: the model has 2188" in refused(check_of_one_edge(run, "--keep", 9999))
    Path("there.json").write_text("")
    assert "there.json exists: give --overwrite" in refused(run("edges", PROMPTS, *zero, "--subgraph", "there.json"))
    pair = {"clean": "a man", "corrupt": "a tall man", "answers": [" a"], "wrong_answers": []}
    Path("bad.json").write_text(json.dumps({"prompts": [pair]}))
    assert "bad.json, prompt 0: clean has 2 tokens, corrupt 3" in refused(run("edges", "bad.json", *zero))
    Path("bad.json").write_text(json.dumps({"prompts": [{**pair, "corrupt": "a boy"}]}))
    assert "prompt 0 has no wrong answers" in refused(run("edges", "bad.json", *zero))
    Path("edges.tsv").write_text("source\tdestination\tinput\tscore\nembedding\tm0\tinput\t1\n")
    assert "prompt 0 has no wrong answers" in refused(run("edges", "check", "edges.tsv", "bad.json", MODEL))


def check_of_one_edge(run, *options):
    Path("edges.tsv").write_text("source\tdestination\tinput\tscore\nembedding\tm0\tinput\t1\n")
    return run("edges", "check", "edges.tsv", PROMPTS, MODEL, *options)


def fake_dot(script, monkeypatch):
    Path("bin").mkdir()
    Path("bin/dot").write_text(f"#!/bin/sh\n{script}\n")
    Path("bin/dot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path('bin').resolve()}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_picture_by_graphviz(run, monkeypatch):
    fake_dot('echo "$1"; cat > "$3"', monkeypatch)
    result = run("edges", PROMPTS, MODEL, "--mask-value", 0, "-o", "edges.tsv", "--plot", "top.png")
    assert result.exit_code == 0, result.stderr
    assert Path("top.png").read_text("utf-8").startswith("digraph edges {")


def test_picture_that_graphviz_cannot_draw(run, monkeypatch):
    fake_dot("echo no fonts >&2; exit 1", monkeypatch)
    result = run("edges", PROMPTS, MODEL, "--mask-value", 0, "-o", "edges.tsv", "--plot", "top.svg")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "dot could not draw top.svg: no fonts" in result.stderr
    assert not Path("top.svg").exists()


def test_picture_without_graphviz(run, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "top.png needs Graphviz, whose dot is not installed: install it, or write a .dot file" in refused(
        run("edges", PROMPTS, MODEL, "--mask-value", 0, "--plot", "top.png")
    )
