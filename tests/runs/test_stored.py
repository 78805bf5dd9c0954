"""ΔLP from what a run stored: all of its windows, each from what was written."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from decomp.runs.manifest import open_run
from decomp.tables.provenance import read_provenance
from tests.commands import MODEL, refused, table
from tests.conftest import ROOT

NAME = "c_opt-tiny-pre"
SENTENCES = (ROOT / "data" / "demo.sentitems").read_text("utf-8").replace("!ARTICLE", "").split()


@pytest.fixture
def corpus(tmp_path):
    """Three articles, the first of more than one window."""
    path = tmp_path / "c.txt"
    path.write_text("".join(f"!ARTICLE\n{' '.join(SENTENCES[:n])}\n" for n in (40, 3, 5)), "utf-8")
    return path


@pytest.mark.parametrize("form", ["safetensors", "pt"])
def test_the_table_has_the_windows_of_the_corpus(done, corpus, form):
    done("score", corpus, MODEL, "-o", "score.tsv", "--decomposition-length", 4)
    done("decompose", corpus, MODEL, 4, "--format", form)
    done("deltalp", NAME, MODEL, "-o", "stored.tsv")
    expected, stored = (table(Path(name).read_text("utf-8")) for name in ("score.tsv", "stored.tsv"))
    keys = ("article", "window", "position", "token", "source_position", "source_token", "word", "char_start")
    assert [[row[key] for key in keys] for row in stored] == [[row[key] for key in keys] for row in expected]
    assert len({(row["article"], row["window"]) for row in stored}) > 3
    difference = [float(a["score"]) - float(b["score"]) for a, b in zip(stored, expected, strict=True)]
    assert max(map(abs, difference)) < 1e-4
    made, plain = read_provenance(Path("stored.tsv")), read_provenance(Path("score.tsv"))
    assert made["model"]["weights"] == plain["model"]["weights"]
    for name in ("activation_rule", "gate_rule"):
        assert made["options"][name] == plain["options"][name]


def test_a_run_of_pt_files_of_another_model_of_the_same_name(run, done, corpus, tmp_path):
    from transformers import OPTForCausalLM

    done("decompose", corpus, MODEL, 4, "--format", "pt")
    other = tmp_path / "other" / "opt-tiny-pre"
    shutil.copytree(MODEL, other)
    model = OPTForCausalLM.from_pretrained(MODEL)
    model.lm_head.weight.data.mul_(1.5)
    model.save_pretrained(other)
    (tmp_path / "d.txt").write_text("!ARTICLE\nA cat.\n")
    result = run("decompose", tmp_path / "d.txt", other, 4, "--format", "pt")
    assert result.exit_code != 0
    assert "opt-tiny-pre_proj_weights.pt is of another model" in result.stderr


def test_an_unfinished_run_is_refused(run, done, corpus):
    done("decompose", corpus, MODEL, 4, "--shard", "1/2")
    count = len(open_run(Path(f"output/{NAME}.run")).items)
    missing = count - len(list(Path("output").glob(f"{NAME}_[0-9]*.safetensors")))
    line = refused(run("deltalp", NAME, MODEL, "--format", "tsv"))
    assert f"{missing} of {count} windows are missing in output/{NAME}.run, the first is article" in line
    done("deltalp", f"{NAME}_0", MODEL)
    done("decompose", corpus, MODEL, 4)
    done("deltalp", NAME, MODEL)
    Path(f"output/{NAME}.run/manifest.json").unlink()
    Path(f"output/{NAME}_1.safetensors").unlink()
    assert f"{NAME}_1 is missing in output, as 1 of {count} windows are" in refused(run("deltalp", NAME, MODEL))


def test_files_of_other_windows_are_refused(run, done, corpus):
    done("decompose", corpus, MODEL, 4)
    first, second = (Path(f"output/{NAME}_{n}.safetensors") for n in (0, 1))
    second.write_bytes(first.read_bytes())
    for arguments in (("deltalp", NAME, MODEL), ("decompose", corpus, MODEL, 4)):
        assert f"{NAME}_1.safetensors holds article 0, window 0, not article 0, window 1" in refused(run(*arguments))
    second.unlink()
    second.mkdir()
    assert f"{NAME}_1.safetensors is no file" in refused(run("decompose", corpus, MODEL, 4))
    second.rmdir()
    done("decompose", corpus, MODEL, 4)
    whole = bytearray(first.read_bytes())
    whole[-5] ^= 1
    first.write_bytes(whole)
    line = refused(run("deltalp", NAME, MODEL, "-o", "stored.tsv"))
    assert f"{NAME}_0.safetensors is damaged: " in line
    assert not Path("stored.tsv").exists()


def test_files_that_say_nothing_of_their_window(run, done, corpus, caplog):
    done("decompose", corpus, MODEL, 4, "--format", "pt")
    for path in Path("output").glob("*.meta.json"):
        path.unlink()
    Path(f"output/{NAME}.run/manifest.json").unlink()
    rows = table(done("deltalp", NAME, MODEL, "--format", "tsv"))
    assert "output has .pt files that do not say which model and window they are of" in caplog.text
    assert {row["window"] for row in rows} == {"0"}


def test_formats_of_the_output(run, done, corpus):
    done("decompose", corpus, MODEL, 4)
    done("deltalp", f"{NAME}_1", MODEL, "-o", "a.txt")
    assert Path("a.txt").read_text("utf-8").startswith(f"\n{NAME}_1 Timestep ")
    done("deltalp", f"{NAME}_1", MODEL, "-o", "a.jsonl")
    assert json.loads(Path("a.jsonl").read_text("utf-8").splitlines()[0])["measure"] == "delta_lp"
    assert ".html is no format of a table" in refused(run("deltalp", f"{NAME}_1", MODEL, "-o", "a.html"))
    stored = f"output/{NAME}_1.safetensors"
    line = refused(run("deltalp", f"{NAME}_1", MODEL, "-o", stored, "--format", "text", "--overwrite"))
    assert "is an input" in line


def test_same_bytes_again(done, corpus):
    for folder in ("a", "b"):
        done("decompose", corpus, MODEL, 4, "--format", "pt", "--output-dir", folder)
    names = sorted(p.name for p in Path("a").iterdir() if p.is_file())
    assert names
    for name in names:
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    assert torch.load(f"a/d_{NAME}_0.pt", weights_only=True).ndim == 3
