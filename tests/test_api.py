"""The Python functions: what the commands write, from a name or a loaded model; and mistakes in one line."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

import decomp
from decomp.api import someone_looks_on, with_progress
from decomp.tables.provenance import FREE, differences, plain, read_provenance
from tests.commands import CORPUS, MODEL, table
from tests.conftest import ROOT

ITEMS = ROOT / "data" / "contrast.csv"
TEXTS = ("The cat sat on the mat.", "A dog ran.")


@pytest.fixture(scope="module")
def pair():
    return decomp.load_model(MODEL)


def written(rows):
    """A table's rows as a TSV file has them."""
    return [{name: "" if value is None else str(value) for name, value in row._asdict().items()} for row in rows]


def test_score_is_the_command(done, pair):
    options = {"function": "prob", "decomposition_length": 6, "stride": 20, "extra": True, "entropy": True}
    told = ("--function", "prob", "--decomposition-length", 6, "--stride", 20, "--extra-rows", "--entropy")
    expected = table(done("score", CORPUS, MODEL, *told))
    for model in (MODEL, Path(MODEL), pair):
        assert written(decomp.score(Path(CORPUS), model, **options)) == expected


def test_a_table_says_how_it_was_made(done, pair, tmp_path):
    done("score", CORPUS, MODEL, "--stride", 20, "--steps", 5, "-o", "command.tsv")
    made = read_provenance(Path("command.tsv"))
    found = decomp.score(Path(CORPUS), pair, stride=20, steps=5)
    assert differences(made, found.about, "command", "python", free=FREE) == []
    found.save("python.tsv")
    assert decomp.load_table("python.tsv").about == plain(found.about)
    nearest = found.select(distance=1)
    nearest.save("nearest.tsv")
    assert decomp.load_table("nearest.tsv").about["table"] == {"distance": 1}
    other = decomp.score(Path(CORPUS), pair, stride=21)
    (line,) = differences(made, other.about, "command", "python", free=FREE | {"options.steps", "tokens"})
    assert line == "options.stride: 20 command, 21 python"


def test_a_table_says_what_a_convention_set(done, pair):
    done("score", CORPUS, MODEL, "--convention", "inseq", "-o", "command.tsv")
    made = read_provenance(Path("command.tsv"))
    found = decomp.score(Path(CORPUS), pair, convention="inseq")
    assert differences(made, found.about, "command", "python", free=FREE | {"options.baseline"}) == []
    plain_table = decomp.score(Path(CORPUS), pair, bos=False)
    different = differences(made, plain_table.about, "inseq", "decomp", free=FREE)
    assert "options.steps: 50 inseq, 20 decomp" in different
    assert any(line.startswith("options.convention") for line in different)
    assert not any(line.startswith("options.bos") for line in different)


@pytest.mark.parametrize(("positions", "baseline"), [(False, "zero"), (True, "mean")])
@pytest.mark.parametrize("given", [{}, {"baseline": "auto"}])
def test_a_table_says_which_baseline_was_chosen(pair, given, positions, baseline):
    table = decomp.score("At.", pair, measures="integrated_gradients", steps=1, positions=positions, **given)
    assert table.about["options"]["baseline"] == baseline


def test_words_and_spans_are_the_command_s(done, pair):
    expected = table(done("score", CORPUS, MODEL, "--unit", "word", "--span", 2, "--corrected", "--no-bos"))
    assert written(decomp.score(Path(CORPUS), pair, unit="word", span=2, corrected=True, bos=False)) == expected


def test_several_texts_are_articles(pair):
    both = decomp.score(TEXTS, pair, ["delta_lp", "attention"], batch_size=1)
    assert sorted(set(both["article"])) == [0, 1]
    assert both.measures() == ["delta_lp", "attention"]
    alone = decomp.score(TEXTS[1], pair)
    second = both.select(article=1, measure="delta_lp")
    assert [row._replace(article=0) for row in second] == list(alone)


def test_one_text_is_a_text_and_a_path_a_file(pair, tmp_path):
    (tmp_path / "c.txt").write_text(TEXTS[0])
    assert written(decomp.score(tmp_path / "c.txt", pair)) == written(decomp.score(TEXTS[0], pair))
    assert set(decomp.score(["c.txt"], pair)["article"]) == {0}


def test_target_and_continuation(pair):
    last = decomp.score(TEXTS[0], pair, targets="last")
    assert len(set(last["position"])) == 1
    longer = decomp.score("The cat", pair, max_new_tokens=3)
    assert len(set(longer["position"])) == 3


def test_contrast_is_the_command(done, pair):
    measures = ("delta_lp", "decomposed_logit")
    told = ("--measure", measures[0], "--measure", measures[1], "--limit", 2, "-q")
    expected = table(done("contrast", ITEMS, MODEL, *told))
    assert written(decomp.contrast(ITEMS, model=pair, measures=measures, limit=2)) == expected


def test_contrast_of_one_item(pair, tmp_path):
    (tmp_path / "one.csv").write_text("item,prompt,target,foil\n0,The cats,sleep,slept\n")
    item = {"model": pair, "measures": "delta_lp", "multi_token": "sum"}
    given, read = (
        written(decomp.contrast(*what, **item)) for what in (("The cats", "sleep", "slept"), (tmp_path / "one.csv",))
    )
    assert [{**row, "phenomenon": ""} for row in read] == given


def test_decompose(pair):
    model, tokenizer = pair
    result = decomp.decompose(TEXTS[0], pair, decomposition_length=3)
    assert result.tokens == tuple(tokenizer.convert_ids_to_tokens(result.input_ids.tolist()))
    assert result.tokens[0] == tokenizer.bos_token
    assert_close(result.dense(), model.decompose(result.input_ids, decomposition_length=3).dense(), rtol=0, atol=0)
    assert decomp.decompose(TEXTS[0], MODEL, bos=False, dtype="float64").hidden.dtype == torch.float64
    assert decomp.decompose(TEXTS[0], pair, bos=False).tokens == result.tokens[1:]


def test_evaluations_are_the_commands(done, pair):
    measures = ("--measure", "delta_lp", "--measure", "attention")
    asked = {"measures": ("delta_lp", "attention"), "seed": 3}
    done("evaluate", "faithfulness", CORPUS, MODEL, *measures, "--targets", 3, "--draws", 2, "--seed", 3, "-o", "f.tsv")
    found = decomp.faithfulness(Path(CORPUS), pair, count=3, draws=2, **asked)
    assert written(found) == table(Path("f.tsv").read_text("utf-8"))
    done("evaluate", "agreement", CORPUS, MODEL, *measures, "--target", "last", "--seed", 3, "-o", "g.tsv")
    assert written(decomp.agreement(Path(CORPUS), pair, targets="last", **asked)) == table(Path("g.tsv").read_text())
    done("evaluate", "alignment", ITEMS, MODEL, "--measure", "delta_lp", "--limit", 3, "--seed", 3, "-o", "a.tsv")
    found = decomp.alignment(ITEMS, pair, "delta_lp", limit=3, seed=3)
    assert written(found) == table(Path("a.tsv").read_text("utf-8"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "the text is empty: give at least one word"),
        (" \n", "the text is empty"),
        ([], "the text is empty"),
        (["", " "], "the text is empty"),
        (3, "expected a text, several texts, rows with fields, or a Path, not int"),
        (["A cat.", 3], "expected a text, several texts, rows with fields, or a Path, not list"),
        (Path("no.txt"), r"can't read no\.txt: No such file"),
        ("no.txt", r"'no\.txt' is a file's name: give Path\('no\.txt'\) to score what the file holds, or \['no"),
        (str(ROOT / "README.md"), "is a file's name"),
    ],
)
def test_bad_sources(source, message):
    for function in (decomp.score, decomp.faithfulness, decomp.agreement):
        with pytest.raises(ValueError, match=message) as caught:
            function(source, MODEL)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"measures": "delta"}, r"unknown measure 'delta': did you mean delta_lp\?"),
        ({"measures": "nothing"}, "unknown measure 'nothing': choose one of delta_lp, "),
        ({"measures": []}, "no measure is asked for: choose one of delta_lp, "),
        ({"step": 3}, r"unknown option 'step': did you mean steps\?"),
        ({"colour": 3}, "unknown option 'colour': choose among convention, decomposition_length, "),
        ({"gradients": 3}, "unknown option 'gradients': "),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"decomposition_length": -1}, "decomposition length must be at least 1, not -1"),
        ({"reduce": "mean"}, "reduce must be one of sum, norm, not 'mean'"),
        ({"activation_rule": "chord"}, "activation_rule must be one of tangent, secant, not 'chord'"),
        ({"gate_rule": "open"}, "gate_rule must be one of frozen, half, not 'open'"),
        ({"function": "odds"}, "unknown function 'odds': choose one of logit, "),
        ({"memory": "much"}, "memory must be a positive amount"),
        ({"unit": "sentence"}, "the unit must be token or word, not 'sentence'"),
        ({"corrected": True}, r"--corrected is for words: give --unit word \(unit='word'\)"),
        ({"unit": "word", "targets": 1}, "--target names tokens"),
        ({"words": Path("no.tsv")}, r"can't read no\.tsv"),
        ({"targets": 99}, "no article has a predicted token at 99"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        decomp.score(TEXTS[0], MODEL, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "source", "settings", "message"),
    [
        (decomp.score, TEXTS[0], {"batch_size": 0}, "batch_size must be at least 1, not 0"),
        (decomp.score, TEXTS[0], {"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
        (decomp.score, TEXTS[0], {"temperature": 0}, "temperature must be above 0, not 0"),
        (decomp.contrast, ITEMS, {"limit": -1}, "limit must be at least 1, not -1"),
        (decomp.faithfulness, TEXTS[0], {"count": 0}, "count must be at least 1, not 0"),
        (decomp.faithfulness, TEXTS[0], {"draws": 1}, "draws must be at least 2, not 1"),
        (decomp.agreement, TEXTS[0], {"batch_size": 1.5}, r"batch_size must be at least 1, not 1\.5"),
        (decomp.alignment, ITEMS, {"limit": 0}, "limit must be at least 1, not 0"),
    ],
)
def test_bad_numbers(function, source, settings, message):
    with pytest.raises(ValueError, match=message):
        function(source, model=MODEL, **settings)


@pytest.mark.parametrize("model", [None, 3, (), ("a", "b"), torch.nn.Linear(1, 1)])
def test_what_is_no_model(model):
    message = r"the model must be a name, or the pair \(model, tokenizer\) of decomp\.load_model, not " + re.escape(
        type(model).__name__
    )
    with pytest.raises(ValueError, match=message):
        decomp.score(TEXTS[0], model)
    with pytest.raises(ValueError, match=message):
        decomp.contrast("The cats", "sleep", "slept", model)
    with pytest.raises(ValueError, match=message):
        decomp.decompose(TEXTS[0], model)


def test_a_loaded_model_has_its_dtype(pair):
    with pytest.raises(ValueError, match=r"loaded already: give dtype, device to decomp\.load_model instead"):
        decomp.score(TEXTS[0], pair, dtype="float64", device="cpu")


@pytest.mark.parametrize(
    ("item", "settings", "message"),
    [
        (("The cats", "sleep"), {}, "a contrast needs the texts prompt, target and foil, or the Path of a table"),
        (("The cats", "sleep", "sleep"), {}, "target and foil are both 'sleep': they must differ"),
        (("The cats", "sleep", ""), {}, "the contrast: the foil '' has no tokens"),
        ((ITEMS, "sleep"), {}, "target and foil stand in the table"),
        ((Path("no.csv"),), {}, r"can't read no\.csv"),
        (("The cats", "sleep", "slept"), {"multi_token": "all"}, "multi_token must be first or sum, not 'all'"),
        (("The cats", "sleep", "slept"), {"function": "prob"}, "prob is no contrast of target and foil"),
    ],
)
def test_bad_contrasts(pair, item, settings, message):
    with pytest.raises(ValueError, match=message):
        decomp.contrast(*item, model=pair, **settings)


def test_texts_that_can_not_be_decomposed(pair):
    with pytest.raises(ValueError, match="the text is empty"):
        decomp.decompose("", pair)
    with pytest.raises(ValueError, match=r"decompose takes one text of at most 64 tokens, this is \d+ windows"):
        decomp.decompose("word " * 70, pair)
    with pytest.raises(ValueError, match="decompose takes one text"):
        decomp.decompose(TEXTS, pair)


def test_items_without_evidence(pair, tmp_path):
    (tmp_path / "none.csv").write_text("prompt,target,foil\nThe cats,sleep,slept\n")
    with pytest.raises(ValueError, match="none of 1 items has evidence that is a word of its prompt"):
        decomp.alignment(tmp_path / "none.csv", pair, "delta_lp")


def test_a_bar_is_shown_where_a_person_looks_on(capsys, monkeypatch):
    def bar(progress):
        assert list(with_progress(iter("ab"), 2, "window", progress)) == ["a", "b"]
        return capsys.readouterr().err

    monkeypatch.setattr("decomp.api.BAR_DELAY", 0)
    assert not someone_looks_on()
    assert bar(None) == ""
    assert "2/2" in bar(True)
    assert bar(False) == ""
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert someone_looks_on()
    assert "2/2" in bar(None)
    shell.config = {}
    assert bar(None) == ""


def test_warnings_of_items_left_out(pair, tmp_path, caplog):
    (tmp_path / "some.csv").write_text("prompt,target,foil\nThe cup,sleep,sleeps\nThe cup,a,b\n")
    found = decomp.contrast(tmp_path / "some.csv", model=pair, measures="delta_lp")
    assert set(found["article"]) == {1}
    assert "1 of 2 items left out, the first is" in caplog.text
