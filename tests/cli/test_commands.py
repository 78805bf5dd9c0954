"""The commands as a person uses them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import decomp
from decomp.cli.main import COMMANDS
from decomp.corpus.articles import read_articles
from decomp.corpus.windows import windows_of
from tests.commands import CORPUS, MODEL, refused, table
from tests.conftest import ROOT


@pytest.fixture
def long_corpus(tmp_path):
    text = (ROOT / "data" / "demo.sentitems").read_text("utf-8").split("!ARTICLE")
    path = tmp_path / "long.sentitems"
    path.write_text("".join(f"!ARTICLE\n{article.strip()[:130]}\n" for article in text[1:]), "utf-8")
    return path


@pytest.mark.parametrize("command", [(), *((c,) for c in COMMANDS)])
def test_help(done, command):
    assert "Usage:" in done(*command, "--help")


def test_version(done):
    assert done("--version") == f"decomp, version {decomp.__version__}\n"


def test_mistyped_names_are_answered_with_the_nearest(run):
    assert "Did you mean 'score'?" in refused(run("scoer", "x", "demo-opt"))
    assert "Did you mean 'faithfulness'?" in refused(run("evaluate", "faithfullness", "x", "demo-opt"))
    assert "--measure" in refused(run("score", "x", "demo-opt", "--mesure", "delta_lp"))


def test_models(done):
    text = done("models")
    for name in ("opt", "gpt2", "demo-opt", "demo-gpt2"):
        assert name in text


def test_measures(done):
    text = " ".join(done("measures").split())  # Long lines are broken anywhere.
    for measure in decomp.SCORES.values():
        assert measure.name in text
        assert measure.citation in text


def test_score_one_target(done, run):
    every = table(done("score", CORPUS, MODEL, "--dtype", "float64"))
    for target, position in ((7, "7"), ("last", "49")):
        rows = table(done("score", CORPUS, MODEL, "--dtype", "float64", "--target", target))
        expected = [row for row in every if row["position"] == position]
        assert [{**row, "score": 0, "log2_prob": 0} for row in rows] == [
            {**row, "score": 0, "log2_prob": 0} for row in expected
        ]
        values = [torch.tensor([float(row["score"]) for row in side]) for side in (rows, expected)]
        # OPT's own attention softmax is in float32, over rows of another length.
        assert_close(*values, rtol=0, atol=1e-6)
    assert "no article has a predicted token at 50: the longest has 50 tokens" in refused(
        run("score", CORPUS, MODEL, "--target", 50)
    )
    for wrong in ("-1", "first", "5:5", "7:", ":3"):
        assert f"a span of positions such as 10:14, last, or all, not {wrong!r}" in refused(
            run("score", CORPUS, MODEL, "--target", wrong)
        )


def test_score_several_targets(done, run):
    several = ("--target", "last", "--target", 5, "--target", "20:24")
    rows = table(done("score", CORPUS, MODEL, "--dtype", "float64", *several))
    assert list(dict.fromkeys((row["position"], row["span"]) for row in rows)) == [("49", "1"), ("5", "1"), ("20", "4")]
    spans = table(done("score", CORPUS, MODEL, "--dtype", "float64", "--span", 4))
    expected = [row for row in spans if row["position"] == "20"]
    assert [row["source_position"] for row in rows if row["span"] == "4"] == [r["source_position"] for r in expected]
    values = [
        torch.tensor([float(r["score"]) for r in side]) for side in ([r for r in rows if r["span"] == "4"], expected)
    ]
    assert_close(*values, rtol=0, atol=1e-6)
    again = ("--target", "last", "--target", 49)
    assert "two targets are the token at 49 of article 0" in refused(run("score", CORPUS, MODEL, *again))
    assert "the target 5 is asked for more than once" in refused(run("score", CORPUS, MODEL, *("--target", 5) * 2))
    assert "no article has the predicted tokens at 48:51" in refused(run("score", CORPUS, MODEL, "--target", "48:51"))


def test_decompose_then_deltalp_then_load(done, tmp_path):
    done("decompose", CORPUS, MODEL, 8)
    assert sorted(os.listdir("output")) == [
        "golden_opt-tiny-pre.run",
        "golden_opt-tiny-pre_0.safetensors",
        "opt-tiny-pre_unembedding.safetensors",
    ]
    model, tokenizer = decomp.load_model(MODEL)
    (window,) = windows_of(read_articles(CORPUS), tokenizer, model.config)
    direct = model.decompose(window.ids, decomposition_length=8)
    stored = decomp.load("output/golden_opt-tiny-pre_0.safetensors")
    assert_close(stored.dense(), direct.dense(), rtol=0, atol=0)
    assert stored.tokens == window.tokens
    rows = table(done("deltalp", "golden_opt-tiny-pre_0", MODEL, "--format", "tsv"))
    scores = direct.delta_lp()
    assert len(rows) == sum(min(i + 1, 8) for i in range(50))
    for row in rows:
        i, k = int(row["position"]), int(row["source_position"]) + 1
        assert abs(float(row["score"]) - scores[i, k].item()) < 1e-5
        assert int(row["distance"]) == i + 1 - k
        assert row["token"] == window.tokens[i + 1]
        assert row["source_token"] == window.tokens[k]


def test_deltalp_text_is_the_original(done):
    done("decompose", CORPUS, MODEL, 8, "--format", "pt")
    assert sorted(os.listdir("output")) == [
        "d_golden_opt-tiny-pre_0.pt",
        "golden_opt-tiny-pre.run",
        "golden_opt-tiny-pre_0.meta.json",
        *(f"{letter}_golden_opt-tiny-pre_0.pt" for letter in "io"),
        "opt-tiny-pre_proj_weights.meta.json",
        "opt-tiny-pre_proj_weights.pt",
    ]
    ours = done("deltalp", "golden_opt-tiny-pre_0", MODEL).splitlines()
    theirs = (ROOT / "tests/golden/dec8/golden_opt-tiny-pre_0.deltalp").read_text("utf-8").splitlines()
    assert [line.split(" = ")[0] for line in ours] == [line.split(" = ")[0] for line in theirs]


@pytest.mark.parametrize("stored_format", ["safetensors", "pt"])
def test_formats_of_deltalp(done, stored_format):
    done("decompose", CORPUS, MODEL, 4, "--format", stored_format)
    tsv = table(done("deltalp", "golden_opt-tiny-pre_0", MODEL, "--format", "tsv"))
    comma = table(done("deltalp", "golden_opt-tiny-pre_0", MODEL, "--format", "csv"), ",")
    lines = [
        json.loads(line) for line in done("deltalp", "golden_opt-tiny-pre", MODEL, "--format", "jsonl").splitlines()
    ]
    assert tsv == comma
    assert [{k: "" if v is None else str(v) for k, v in line.items()} for line in lines] == tsv


def test_score_is_decompose_and_deltalp(done, long_corpus):
    done("decompose", long_corpus, MODEL, 20)
    stored = table(done("deltalp", "long_opt-tiny-pre", MODEL, "--format", "tsv"))
    scored = table(done("score", long_corpus, MODEL, "--decomposition-length", 20))
    assert "1" in {row["window"] for row in scored}
    assert [{**row, "score": 0, "log2_prob": 0} for row in stored] == [
        {**row, "score": 0, "log2_prob": 0} for row in scored
    ]
    for column in ("score", "log2_prob"):
        values = [torch.tensor([float(row[column]) for row in side]) for side in (stored, scored)]
        assert_close(*values, rtol=0, atol=1e-4)


def test_score_predicts_every_token_once(done, long_corpus):
    _, tokenizer = decomp.load_model(MODEL)
    lengths = [
        len(tokenizer(article.text, add_special_tokens=False)["input_ids"]) for article in read_articles(long_corpus)
    ]
    expected = [(str(a), str(p)) for a, n in enumerate(lengths) for p in range(n)]
    assert max(lengths) > 64
    for options in ((), ("--stride", 10), ("--batch-size", 1)):
        rows = table(done("score", long_corpus, MODEL, "--decomposition-length", 3, *options))
        assert list(dict.fromkeys((r["article"], r["position"]) for r in rows)) == expected
        assert len({(r["article"], r["position"], r["distance"]) for r in rows}) == len(rows)


def test_score_options(done):
    plain = table(done("score", CORPUS, MODEL))
    for options in (("--memory", "4MiB"), ("--dtype", "float64"), ("--activation-rule", "secant"), ("--device", "cpu")):
        other = table(done("score", CORPUS, MODEL, *options))
        values = [torch.tensor([float(row["score"]) for row in side]) for side in (plain, other)]
        assert_close(*values, rtol=0, atol=1e-4)
    bare = table(done("score", CORPUS, MODEL, "--no-bos"))
    assert bare[0]["position"] == "1"
    assert all(row["source_position"] != "-1" for row in bare)
    assert len(table(done("score", CORPUS, MODEL, "--format", "csv"), ",")) == len(plain)


def test_extra_rows(done):
    rows = table(done("score", CORPUS, MODEL, "--extra-rows", "--decomposition-length", 5))
    extra = [row for row in rows if row["source_token"].startswith("<") and row["source_position"] == ""]
    assert [row["source_token"] for row in extra] == ["<bias>", "<remainder>"] * 50
    assert all(row["distance"] == "" for row in extra)
    model, tokenizer = decomp.load_model(MODEL)
    (window,) = windows_of(read_articles(CORPUS), tokenizer, model.config)
    result = model.decompose(window.ids, decomposition_length=5)
    logits = result.unembedding.logits(result.hidden[:-1])
    for name, vector in (("<bias>", result.bias), ("<remainder>", result.remainder())):
        ablated = result.unembedding.logits((result.hidden - vector)[:-1])
        expected = logits.log_softmax(-1) - ablated.log_softmax(-1)
        expected = expected.gather(1, result.next_ids()[:, None])[:, 0] / torch.tensor(2.0).log()
        got = torch.tensor([float(row["score"]) for row in extra if row["source_token"] == name])
        assert_close(got, expected, rtol=0, atol=1e-4)


def test_closed_standard_output(monkeypatch, tmp_path):
    """As after `>&-`: said before anything is computed but what comes first, and no matter where there is a file."""
    from decomp.cli.common import destination
    from decomp.cli.scoring import on_terminal

    monkeypatch.setattr("sys.stdout", None)
    with (
        pytest.raises(ValueError, match="can't write to standard output: it is closed; give --output"),
        destination(None),
    ):
        pass
    with destination(tmp_path / "table.tsv") as file:
        file.write("a row")
    assert not on_terminal()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough(tmp_path, unbuffered):
    """As `| head` after its last line: no message, exit code 1."""
    seen, written = os.pipe()
    os.close(seen)
    command = [sys.executable, "-c", "from decomp.cli.main import main; main()", "measures"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, stdout=written, stderr=subprocess.PIPE, check=False)
    os.close(written)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_output_file_and_quiet(done, run):
    printed = done("score", CORPUS, MODEL)
    result = run("score", CORPUS, MODEL, "-o", "table.tsv", "--quiet")
    assert (result.stdout, result.stderr) == ("", "")
    assert Path("table.tsv").read_text("utf-8") == printed
    assert "table.tsv exists: give --overwrite" in refused(run("score", CORPUS, MODEL, "-o", "table.tsv"))
    done("score", CORPUS, MODEL, "-o", "table.tsv", "--overwrite")


def test_store_dtype_halves(done):
    done("decompose", CORPUS, MODEL, 50, "--output-dir", "whole")
    done("decompose", CORPUS, MODEL, 50, "--output-dir", "half", "--store-dtype", "float16")
    sizes = [Path(f, "golden_opt-tiny-pre_0.safetensors").stat().st_size for f in ("whole", "half")]
    assert 0.5 < sizes[1] / sizes[0] < 0.6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions(done, dtype):
    done("decompose", CORPUS, MODEL, 8, "--dtype", dtype)
    stored = table(done("deltalp", "golden_opt-tiny-pre_0", MODEL, "--format", "tsv"))
    scored = table(done("score", CORPUS, MODEL, "--decomposition-length", 8, "--dtype", dtype))
    values = [torch.tensor([float(row["score"]) for row in side]) for side in (stored, scored)]
    assert len(values[0]) == len(values[1]) == 372
    assert_close(*values, rtol=0, atol=1e-4 if dtype == "float64" else 0.5)


def test_decompose_says_what_it_will_write(run):
    result = run("decompose", CORPUS, MODEL, 8)
    assert "1 windows, 51 tokens; " in result.stderr
    said = float(result.stderr.split("; ")[1].split(" KiB")[0]) * 1024
    written = sum(p.stat().st_size for p in Path("output").glob("*.safetensors"))
    assert 0.98 < said / written < 1.0


def test_full_disk(run, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    assert "the output needs" in refused(run("decompose", CORPUS, MODEL, 8))
    assert list(Path("output").iterdir()) == []


def test_existing_output(done, run):
    done("decompose", CORPUS, MODEL, 8)
    line = refused(run("decompose", CORPUS, MODEL, 9))
    assert "options.decomposition_length: 8 in the run, 9 asked" in line
    done("decompose", CORPUS, MODEL, 9, "--overwrite")
    assert decomp.load("output/golden_opt-tiny-pre_0.safetensors").decomposition_length == 9


def test_overwriting_leaves_no_window_of_the_longer_run(done, tmp_path):
    corpus = tmp_path / "c.txt"
    corpus.write_text("!ARTICLE\nA\n!ARTICLE\nB\n")
    done("decompose", corpus, MODEL, 8)
    corpus.write_text("!ARTICLE\nA\n")
    done("decompose", corpus, MODEL, 8, "--overwrite")
    assert sorted(os.listdir("output")) == [
        "c_opt-tiny-pre.run",
        "c_opt-tiny-pre_0.safetensors",
        "opt-tiny-pre_unembedding.safetensors",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "can't write into" in refused(run("decompose", CORPUS, MODEL, 8, "--output-dir", "closed"))


LONG = "a" * 260


@pytest.mark.parametrize(
    "command",
    [
        ("score", LONG, MODEL),
        ("score", CORPUS, LONG),
        ("table", f"{LONG}.tsv"),
        ("status", LONG),
        ("layers", f"{LONG}.jsonl", MODEL),
        ("score", CORPUS, MODEL, "-o", f"{LONG}.tsv"),
    ],
    ids=lambda command: f"{command[0]}-{command.index(next(a for a in command if LONG in a))}",
)
def test_names_that_no_file_can_have(run, command):
    assert re.search(r"can't (use|read|write) a{260}[\w./]*: File name too long", refused(run(*command)))


def test_names_that_no_stored_file_can_have(run, tmp_path):
    corpus = tmp_path / f"{'a' * 240}.txt"
    corpus.write_text("One more.", "utf-8")
    assert re.search(r"can't write .*: File name too long", refused(run("decompose", corpus, MODEL, 5)))


def test_output_dir_is_a_file(run):
    Path("output").write_text("")
    assert "can't make the output folder output" in refused(run("decompose", CORPUS, MODEL, 8))


@pytest.mark.parametrize("command", ["score", "decompose"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't read bad.txt: No such file"),
        (b"!ARTICLE\n\xff", "bad.txt is not UTF-8: invalid byte at offset 9"),
        (b"!ARTICLE\n", "bad.txt has no text"),
    ],
)
def test_bad_corpus(run, command, content, message):
    if content is not None:
        Path("bad.txt").write_bytes(content)
    arguments = ("bad.txt", MODEL, *([8] if command == "decompose" else []))
    assert message in refused(run(command, *arguments))
    assert not Path("output").exists()


def test_bad_requests(run):
    assert "0 is not in the range x>=1" in refused(run("decompose", CORPUS, MODEL, 0))
    assert "0 is not in the range x>=1" in refused(run("score", CORPUS, MODEL, "--decomposition-length", 0))
    assert "unknown measure 'magic': choose one of delta_lp" in refused(
        run("score", CORPUS, MODEL, "--measure", "magic")
    )
    assert "memory must be a positive amount" in refused(run("score", CORPUS, MODEL, "--memory", "lots"))
    assert "device 'nonsense'" in refused(run("score", CORPUS, MODEL, "--device", "nonsense"))
    assert "stride must be from 1 to 63" in refused(run("score", CORPUS, MODEL, "--stride", 64))
    Path("folder").mkdir()
    assert "the folder must hold config.json" in refused(run("score", CORPUS, "folder"))


def test_deltalp_refuses(done, run):
    assert "no folder output" in refused(run("deltalp", "golden_opt-tiny-pre_0", MODEL))
    done("decompose", CORPUS, MODEL, 8)
    line = refused(run("deltalp", "golden_opt-tiny_0", MODEL))
    assert "no decomposition 'golden_opt-tiny_0' in output: near ones are golden_opt-tiny-pre_0" in line
    line = refused(run("deltalp", "golden_opt-tiny-pre_0", "demo-opt"))
    assert "was made with the model opt-tiny-pre, not with demo-opt" in line
    Path("output/opt-tiny-pre_unembedding.safetensors").unlink()
    assert "opt-tiny-pre_unembedding.safetensors is missing" in refused(run("deltalp", "golden_opt-tiny-pre_0", MODEL))
    Path("output/golden_opt-tiny-pre_0.safetensors").write_bytes(b"{}")
    assert "is truncated or no safetensors file" in refused(run("deltalp", "golden_opt-tiny-pre_0", MODEL))


def test_demo(done):
    text = done("demo")
    assert "rests on" in text
    assert "output/demo_demo-opt.tsv" in text
    assert len(text.splitlines()) == 16
    assert len(table(Path("output/demo_demo-opt.tsv").read_text("utf-8"))) > 10000


def test_demo_with_a_model_that_is_none(run):
    assert "unknown demo model 'gpt2': did you mean demo-gpt2?" in refused(run("demo", "gpt2"))
