"""The original research code's own output: contributions, states, and every line of ΔLP."""

import re

import pytest
import torch
from torch.testing import assert_close

import decomp
from decomp.core.storage import save_pt
from decomp.corpus.articles import read_articles
from decomp.corpus.windows import windows_of
from decomp.measures.result import Scores
from decomp.tables.original_text import lines
from tests.conftest import ROOT, SHARED, needs_shared

GOLDEN = ROOT / "tests" / "golden"
IDENTIFIER = "golden_opt-tiny-pre_0"
FOLDERS = [
    pytest.param(GOLDEN / "dec8", 8, id="8"),
    pytest.param(SHARED / "golden" / "opt-tiny-pre" / "dec2048", 2048, id="2048", marks=needs_shared),
]


@pytest.fixture(scope="module")
def golden():
    model, tokenizer = decomp.load_model(str(GOLDEN / "opt-tiny-pre"))
    (window,) = windows_of(read_articles(GOLDEN / "golden.sentitems"), tokenizer, model.config)
    return model, window


@pytest.mark.parametrize(("folder", "length"), FOLDERS)
def test_files(golden, folder, length, tmp_path):
    model, window = golden
    save_pt(model.decompose(window.ids, decomposition_length=length), tmp_path, IDENTIFIER, "opt-tiny-pre")
    for letter in "dio":
        ours, theirs = (torch.load(f / f"{letter}_{IDENTIFIER}.pt", weights_only=True) for f in (tmp_path, folder))
        assert ours.dtype == theirs.dtype
        assert_close(ours, theirs, rtol=0, atol=1e-5)


NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


@pytest.mark.parametrize(("folder", "length"), FOLDERS)
def test_every_line_of_delta_lp(golden, folder, length):
    model, window = golden
    result = model.decompose(window.ids, decomposition_length=length)
    scores = Scores(
        "delta_lp", range(len(result) - 1), result.decomposition_length, result.next_log2_prob(), result.delta_lp(), {}
    )
    ours = list(lines(IDENTIFIER, scores, window.tokens))
    theirs = (folder / f"{IDENTIFIER}.deltalp").read_text("utf-8").splitlines()
    assert [NUMBER.sub("#", line) for line in ours] == [NUMBER.sub("#", line) for line in theirs]
    numbers = [torch.tensor([float(n) for line in side for n in NUMBER.findall(line)]) for side in (ours, theirs)]
    assert len(numbers[0]) > 700
    assert_close(*numbers, rtol=0, atol=1e-4)


def test_their_files_give_their_delta_lp(golden):
    model, window = golden
    stored = decomp.load(GOLDEN / "dec8" / f"d_{IDENTIFIER}.pt")
    computed = model.decompose(window.ids, decomposition_length=8)
    targets, sources = computed.pairs()
    assert_close(stored.dense()[targets, sources], computed.dense()[targets, sources], rtol=0, atol=1e-5)
    assert stored.input_ids.tolist() == window.ids.tolist()
