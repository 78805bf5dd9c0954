"""What the shell completes."""

import os
import subprocess
import sys

import pytest
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from decomp.cli.main import COMMANDS, main
from tests.conftest import ROOT


@pytest.fixture(params=[BashComplete, ZshComplete, FishComplete])
def shell(request):
    return request.param(main, {}, "decomp", "_DECOMP_COMPLETE")


@pytest.fixture
def completed(shell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))

    def completed(*words):
        *args, incomplete = words
        return [item.value for item in shell.get_completions(args, incomplete)]

    return completed


def test_commands(completed):
    assert completed("") == list(COMMANDS)
    assert completed("evaluate", "a") == ["alignment", "agreement"]
    assert completed("neurons", "")[:2] == ["find", "check"]


def test_options_and_choices(completed):
    assert completed("score", "--min-") == ["--min-abs", "--min-distance"]
    assert completed("score", "corpus.txt", "demo-opt", "--unit", "") == ["token", "word"]
    assert completed("score", "corpus.txt", "demo-opt", "--device", "c") == ["cpu", "cuda", "cuda:0", "cuda:1"]


def test_measures_and_functions(completed):
    assert completed("score", "--measure", "attention") == [
        "attention",
        "attention_rollout",
        "attention_norm",
        "attention_norm_resln",
    ]
    assert completed("contrast", "items.csv", "demo-opt", "--measure", "decomposed") == ["decomposed_logit"]
    assert completed("score", "--function", "") == ["logit", "log2_prob", "prob"]
    assert completed("contrast", "--function", "contrast_p") == ["contrast_prob"]


def test_models(completed, tmp_path, monkeypatch):
    (tmp_path / "hub" / "models--EleutherAI--pythia-70m").mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "demo-mine").mkdir()
    (tmp_path / "demo.gguf").touch()
    (tmp_path / "demo.txt").touch()
    assert completed("score", "corpus.txt", "demo") == ["demo-opt", "demo-gpt2", "demo-mine/", "demo.gguf"]
    assert completed("score", "corpus.txt", "Eleu") == ["EleutherAI/pythia-70m"]
    assert completed("score", "--text", "A text", "demo-o") == ["demo-opt"]
    assert completed("demo", "") == ["demo-opt", "demo-gpt2"]


def test_files(completed, tmp_path):
    (tmp_path / "demolition.txt").touch()
    assert completed("layers", "demo-f") == ["demo-facts.jsonl"]
    assert completed("neurons", "demo-f") == ["demo-facts.jsonl"]
    assert completed("score", "demo.") == ["demo.sentitems"]
    assert completed("layers", "demo")[-1] == "demolition.txt"


def test_other_files_are_left_to_the_shell(shell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["score", ""], ["score", "corp"], ["table", "x"], ["score", "c.txt", "demo-opt", "-o", "t"]):
        *args, incomplete = words
        (item,) = shell.get_completions(args, incomplete)
        assert (item.type, item.value) == ("file", incomplete)


def test_columns(completed, tmp_path):
    (tmp_path / "corpus.csv").write_text("id,body,title\n1,A text,T\n", "utf-8")
    (tmp_path / "bad.csv").write_bytes(b"\xff")
    assert completed("score", "corpus.csv", "demo-opt", "--text-field", "") == ["id", "body", "title"]
    assert completed("score", "corpus.csv", "demo-opt", "--id-field", "i") == ["id"]
    assert completed("table", "t.tsv", "--join", "corpus.csv", "--on", "t") == ["title="]
    assert completed("table", "t.tsv", "--join", "corpus.csv", "--on-word", "b") == ["body"]
    for name in ("bad.csv", "none.csv", "corpus.txt"):
        assert completed("score", name, "demo-opt", "--text-field", "") == []


@pytest.mark.parametrize(("shell", "expected"), [("bash", "plain,delta_lp"), ("zsh", "plain\ndelta_lp\n_")])
def test_without_torch(shell, expected, tmp_path):
    """As a shell asks; torch takes seconds to import."""
    code = "import sys; sys.modules['torch'] = None; from decomp.cli.main import main; main(prog_name='decomp')"
    asked = {"COMP_WORDS": "decomp score keys.txt demo-opt --measure delta", "COMP_CWORD": "5"}
    environment = {**os.environ, **asked, "_DECOMP_COMPLETE": f"{shell}_complete", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ended.stdout.strip(), ended.stderr) == (expected, "")
