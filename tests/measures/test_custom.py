"""Measures of one's own: in the table, the commands, the evaluation; by a script or an installed package."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import decomp
from decomp.measures import SCORES, Request, Text, find_measure, registry
from tests.commands import CORPUS, MODEL, refused, table
from tests.variants import make_pair, random_ids


def recency(model, text, request):
    """1 / distance, the same for every function."""
    targets, sources = torch.arange(len(text.ids) - 1)[:, None], torch.arange(len(text.ids))
    return 1 / (targets + 1 - sources).clamp(min=1).double()


@pytest.fixture(autouse=True)
def _as_they_were():
    before = dict(SCORES)
    yield
    SCORES.clear()
    SCORES.update(before)


def test_it_is_a_measure_as_others_are():
    measure = decomp.register_measure("recency", recency, line="1 / distance", citation="nobody", unit="none")
    assert find_measure("recency") is measure
    _, model = make_pair("gpt2")
    ids = random_ids(6)
    ((scores,),) = measure(model, [Text(ids, range(2, 5))], Request(decomposition_length=2))
    assert scores.targets == range(2, 5)
    assert_close(scores.scores[3], torch.tensor([0, 0, 1 / 2, 1, 0, 0], dtype=torch.float64))
    ((other,),) = find_measure("delta_lp")(model, [Text(ids, range(2, 5))], Request())
    assert_close(scores.log2_prob[2:], other.log2_prob[2:])


def test_functions_and_words():
    decomp.register_measure("recency", recency, functions=("prob", "log2_prob"), together="sum")
    _, model = make_pair("gpt2")
    words = torch.tensor([0, 1, 1, 2])
    text = Text(random_ids(4), range(3), words=words)
    with pytest.raises(ValueError, match="prob of tokens does not add up to that of words: score log2_prob"):
        list(find_measure("recency")(model, [text], Request()))
    ((scores,),) = find_measure("recency")(model, [text], Request(function="log2_prob"))
    assert scores.measure == "recency:log2_prob"
    # Word 1 (tokens 1 and 2) from word 0; word 2 (token 3) from words 0 and 1.
    expected = torch.tensor([[1 + 1 / 2, 0, 0], [1 / 3, 1 / 2 + 1, 0]], dtype=torch.float64)
    assert_close(scores.scores, expected)


def test_commands_know_it(done):
    decomp.register_measure("recency", recency, line="1 / distance", citation="nobody", unit="none")
    assert "recency\n    1 / distance (nobody)\n    unit: none\n" in done("measures")
    rows = table(done("score", CORPUS, MODEL, "--measure", "recency", "--target", "last"))
    assert [float(row["score"]) for row in rows[-3:]] == pytest.approx([1 / 3, 1 / 2, 1])
    assert {row["measure"] for row in rows} == {"recency"}
    shown = done("evaluate", "faithfulness", CORPUS, MODEL, "--measure", "recency", "--targets", 2, "--removal", "mask")
    assert "recency" in shown


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("delta_lp", {}, "there is a measure delta_lp already: choose another name"),
        ("<bias>", {}, "'<bias>' can't name a measure: use a letter"),
        ("a:b", {}, "'a:b' can't name a measure"),
        ("mine", {"functions": ("odds",)}, "unknown functions odds: choose among logit"),
        ("mine", {"functions": ("prob",), "default": "logit"}, "default function of mine must be one of its functions"),
        ("mine", {"default": "logit"}, "default function of mine must be one of its functions"),
    ],
)
def test_what_can_not_be_registered(name, more, message):
    with pytest.raises(ValueError, match=message):
        decomp.register_measure(name, recency, **more)


def test_scores_of_another_shape():
    measure = decomp.register_measure("mine", lambda model, text, request: torch.zeros(3))
    _, model = make_pair("gpt2")
    with pytest.raises(ValueError, match=r"mine gave scores of shape \(3,\) for a text of 4 tokens: expected \(3, 4\)"):
        list(measure(model, [Text(random_ids(4), range(3))], Request()))


PACKAGES = {
    "good": """
import decomp, torch
decomp.register_measure("mine", lambda model, text, request: torch.ones(len(text.ids) - 1, len(text.ids)))
""",
    "empty": "",
    "bad": "import nothing_of_that_name\n",
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Packages that offer a measure called mine."""

    def installed(name):
        Path(tmp_path / f"offers_{name}.py").write_text(PACKAGES[name], "utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, f"offers_{name}", raising=False)
        point = EntryPoint("mine", f"offers_{name}", "decomp.measures")
        monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "decomp.measures" else [])

    return installed


def test_a_package_offers_one(done, installed):
    installed("good")
    rows = table(done("score", CORPUS, MODEL, "--measure", "mine", "--target", "last"))
    assert {row["score"] for row in rows} == {"1.0"}
    assert "\nmine\n" in done("measures")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "empty",
            "the measure mine of offers_empty is not registered when that is imported: call decomp.register_measure",
        ),
        ("bad", "the measure mine of offers_bad can't be imported: ModuleNotFoundError"),
    ],
)
def test_a_package_that_does_not(run, installed, name, message):
    installed(name)
    assert message in refused(run("score", CORPUS, MODEL, "--measure", "mine"))
    assert "choose one of delta_lp" in refused(run("score", CORPUS, MODEL, "--measure", "magic"))
