"""No score that is not finite gets by, whatever measure or file it comes from."""

import math
import re
from dataclasses import replace

import pytest
import torch

import decomp
from decomp.core.decomposition import Decomposition
from decomp.measures import SCORES
from decomp.measures.result import Scores, finite
from tests.commands import CORPUS, MODEL, refused

GOOD = Scores("m", range(1, 4), 5, torch.zeros(4), torch.zeros(4, 5), {"<bias>": torch.zeros(4)})


def spoilt(tensor, *place, value=math.nan):
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": spoilt(GOOD.scores, 2, 1)}, "m: source 1 of target 2 in article 7 is nan: use a dtype with more"),
        ({"scores": spoilt(GOOD.scores, 3, 0, value=math.inf)}, "m: source 0 of target 3 in article 7 is inf"),
        ({"log2_prob": spoilt(GOOD.log2_prob, 1, value=-math.inf)}, "m: the log2 probability of target 1 .* is -inf"),
        ({"extra": {"<bias>": spoilt(GOOD.log2_prob, 3)}}, "m: <bias> of target 3 in article 7 is nan"),
    ],
)
def test_what_is_not_finite_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        finite(replace(GOOD, **changes), "article 7")


def test_what_nobody_asked_for_may_be_anything():
    rest = replace(GOOD, scores=spoilt(GOOD.scores, 0, 0), log2_prob=spoilt(GOOD.log2_prob, 0))
    assert finite(GOOD) is GOOD
    assert finite(rest) is rest


@pytest.fixture
def broken():
    """A measure that is no number for the last source of each text."""

    def compute(model, text, request):
        return spoilt(torch.ones(len(text.ids) - 1, len(text.ids)), -1, -2)

    yield decomp.register_measure("broken", compute)
    del SCORES["broken"]


def test_every_command_refuses_it(run, broken, tmp_path):
    measure = ("--measure", "broken")
    line = refused(run("score", CORPUS, MODEL, *measure))
    assert line.startswith("Error: broken: source ")
    assert "in article 0, window 0 is nan" in line
    (tmp_path / "items.csv").write_text("prompt,target,foil,evidence\nThe cats,sleep,slept,cats\n", "utf-8")
    for command in (("contrast",), ("evaluate", "alignment")):
        assert "in items.csv, line 2 is nan" in refused(run(*command, "items.csv", MODEL, *measure))
    for command in ("faithfulness", "agreement"):
        asked = ("evaluate", command, CORPUS, MODEL, *measure, "--measure", "delta_lp")
        assert "in article 0, window 0 is nan" in refused(run(*asked))


def test_stored_decompositions_too(run, done, monkeypatch):
    done("decompose", CORPUS, MODEL, 4, "--output-dir", "out")
    plain = Decomposition.delta_lp
    monkeypatch.setattr(Decomposition, "delta_lp", lambda self, first: spoilt(plain(self, first), -1, -2))
    result = run("deltalp", "golden_opt-tiny-pre_0", MODEL, "--output-dir", "out", "-o", "out.txt")
    assert re.search(r"delta_lp: source \d+ of target \d+ in golden_opt-tiny-pre_0 is nan", refused(result))
