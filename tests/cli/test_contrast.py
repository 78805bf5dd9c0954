"""`decomp contrast`, `decomp evaluate alignment` and `agreement` as a person uses them."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from decomp.corpus.contrast_items import read_items
from decomp.measures.contrast_request import default_measures
from decomp.tables.columns import COLUMNS
from tests.commands import CORPUS, MODEL, refused, table
from tests.conftest import ROOT, SHARED, needs_shared

ITEMS = str(ROOT / "data" / "contrast.csv")
FRONT = ("item", "phenomenon", "foil", "log2_odds", "prefers_target", "multi_token")
DELTA_LP = ("--measure", "delta_lp")
MEASURES = ("--measure", "delta_lp", "--measure", "decomposed_logit")
PREFIXED = "prompt,target,foil\nThe cup,sleep,sleeps\nThe cup,a,b\n"


@pytest.fixture
def small():
    """Items for the tiny model, which has few words."""
    path = Path("small.csv")
    path.write_text("prompt,target,foil,evidence\nThe cats,sleep,slept,cats\nA dog,ran,run,\n", "utf-8")
    return path


@pytest.mark.parametrize("command", ["alignment", "agreement"])
def test_help(done, command):
    assert "Usage:" in done("evaluate", command, "--help")
    assert command in done("evaluate", "--help")


def test_contrast_of_the_shipped_items(run):
    result = run("contrast", ITEMS, "demo-opt", *MEASURES, "--limit", 4)
    assert result.exit_code == 0, result.output
    rows = table(result.stdout)
    assert tuple(rows[0]) == (*FRONT, *COLUMNS)
    assert list(dict.fromkeys(row["item"] for row in rows)) == ["keys", "captain", "letters", "sister"]
    assert list(dict.fromkeys(row["article"] for row in rows)) == ["0", "1", "2", "3"]
    keys = [row for row in rows if row["item"] == "keys"]
    assert {(row["token"], row["foil"], row["multi_token"]) for row in keys} == {("Ġwere", "Ġwas", "first")}
    shares = [float(row["score"]) for row in keys if row["measure"] == "decomposed_logit:contrast_logit"]
    odds = float(keys[0]["log2_odds"])
    assert_close(torch.tensor(sum(shares)), torch.tensor(odds * 0.6931472), rtol=0, atol=1e-4)
    preferred = {row["item"]: row["prefers_target"] for row in rows}
    assert preferred == {
        row["item"]: str(float(row["log2_odds"]) > 0) for row in sorted(rows, key=lambda row: row["item"])
    }
    assert f"prefers the target in {list(preferred.values()).count('True')} of 4 items" in result.stderr


@pytest.mark.parametrize("multi_token", ["first", "sum"])
def test_measures_asked_by_default(done, small, multi_token):
    rows = table(done("contrast", small, MODEL, "--multi-token", multi_token, "--limit", 1))
    names = [row["measure"].split(":")[0] for row in rows]
    assert tuple(dict.fromkeys(names)) == default_measures(multi_token)


def test_delta_lp_is_the_decomposition_in_bits(done):
    rows = table(done("contrast", ITEMS, "demo-gpt2", *MEASURES, "--limit", 2))
    scores = {
        name: [float(r["score"]) for r in rows if r["measure"] == name and r["distance"]]
        for name in ("delta_lp:contrast_log2_prob", "decomposed_logit:contrast_logit")
    }
    bits, logits = (torch.tensor(values) for values in scores.values())
    assert len(bits) > 10
    assert_close(bits * 0.6931472, logits, rtol=0, atol=1e-5)


def test_contrast_by_teacher_forcing(done, small):
    rows = table(done("contrast", small, MODEL, *DELTA_LP, "--multi-token", "sum"))
    first = [row for row in rows if row["article"] == "0"]
    assert {(row["token"], row["foil"], row["multi_token"]) for row in first} == {("Ġsleep", "Ġslept", "sum")}
    assert first[-1]["source_token"] == "<continuation>"
    assert first[-1]["source_position"] == first[-1]["distance"] == ""
    assert [row["source_token"] for row in first[1:-1]] == ["The", "Ġc", "at", "s"]
    both = table(done("contrast", small, MODEL, *DELTA_LP, "--multi-token", "sum", "--batch-size", 1))
    assert both == rows


def test_contrast_first_shares_what_is_the_same(done, small):
    rows = table(done("contrast", small, MODEL, *DELTA_LP, "--no-bos"))
    first = [row for row in rows if row["article"] == "0"]
    assert {(row["token"], row["foil"], row["position"]) for row in first} == {("e", "pt", "6")}
    assert [row["source_token"] for row in first] == ["The", "Ġc", "at", "s", "Ġs", "le"]


def test_contrast_output(done, run, small):
    printed = done("contrast", small, MODEL, *DELTA_LP, "--format", "jsonl")
    result = run("contrast", small, MODEL, *DELTA_LP, "--format", "jsonl", "-o", "out.jsonl", "-q")
    assert (result.stdout, result.stderr) == ("", "")
    assert Path("out.jsonl").read_text("utf-8") == printed
    assert "out.jsonl exists" in refused(run("contrast", small, MODEL, *DELTA_LP, "-o", "out.jsonl"))


def test_items_without_a_token_that_differs(run, caplog):
    Path("some.csv").write_text(PREFIXED, "utf-8")
    result = run("contrast", "some.csv", MODEL, *DELTA_LP)
    assert "1 of 2 items left out, the first is some.csv, line 2" in caplog.text
    assert {row["article"] for row in table(result.stdout)} == {"1"}
    Path("all.csv").write_text("".join(PREFIXED.splitlines(keepends=True)[:2]), "utf-8")
    assert "1 of 1 items left out, the first is all.csv, line 2" in refused(
        run("contrast", "all.csv", MODEL, *DELTA_LP)
    )


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("prompt,target\nx,y\n", (), "bad.csv, line 2 lacks foil: it has prompt, target"),
        ("prompt,target,foil\nx,y,y\n", (), "bad.csv, line 2: target and foil are both 'y'"),
        ("prompt,target,foil\nx,,y\n", (), "bad.csv, line 2: target is blank: give some text"),
        ("prompt,target,foil\nx,y, \n", (), "bad.csv, line 2: foil is blank: give some text"),
        (f"prompt,target,foil\n{'x' * 70},y,z\n", (), "bad.csv, line 2: the item has 73 tokens, the model has 64"),
        ("prompt,target,foil\nx,y,z\n", ("--measure", "magic"), "unknown measure 'magic': choose one of"),
        ("prompt,target,foil\nx,y,z\n", ("--function", "prob"), "prob is no contrast of target and foil"),
        (
            "prompt,target,foil\nx,y,z\n",
            ("--multi-token", "sum", "--measure", "decomposed_logit"),
            "decomposed_logit can't be added up over the tokens",
        ),
    ],
)
@pytest.mark.parametrize("command", [("contrast",), ("evaluate", "alignment")])
def test_bad_items(run, command, text, options, message):
    Path("bad.csv").write_text(text, "utf-8")
    measure = () if "--measure" in options else DELTA_LP
    assert message in refused(run(*command, "bad.csv", MODEL, *measure, *options))


def test_alignment(done):
    text = done("evaluate", "alignment", ITEMS, "demo-gpt2", *MEASURES, "-o", "a.tsv")
    assert "anaphor_gender: 2 items, target preferred in " in text
    assert text.count("<random>") == text.count("<all>") + 7 == 8
    rows = table(Path("a.tsv").read_text("utf-8"))
    assert tuple(rows[0]) == ("phenomenon", "measure", "metric", "items", "mean", "low", "high", "seed")
    assert len(rows) == 8 * (1 + 3 * 3)
    found = {(r["phenomenon"], r["measure"], r["metric"]): r for r in rows}
    # Of one score, the ranks are the same in bits and in logits.
    for metric in ("dot_product", "probes_needed", "reciprocal_rank"):
        bits, logits = (
            found["<all>", name, metric]["mean"]
            for name in ("delta_lp:contrast_log2_prob", "decomposed_logit:contrast_logit")
        )
        assert_close(float(bits), float(logits), rtol=0, atol=1e-5)
    every = found["<all>", "<random>", "reciprocal_rank"]
    assert int(every["items"]) == len(read_items(Path(ITEMS))) == 12
    assert float(every["low"]) < float(every["mean"]) < float(every["high"])


def test_seeds_of_intervals(done):
    Path("a.csv").write_text("prompt,target,foil,evidence\nThe cat,sat,set,cat\nA dog ran,on,in,dog\n", "utf-8")
    asked = ("evaluate", "alignment", "a.csv", MODEL, *DELTA_LP)
    assert done(*asked, "-o", "0.tsv") == done(*asked)
    done(*asked, "--seed", 1, "-o", "1.tsv")
    assert {row["seed"] for row in table(Path("0.tsv").read_text("utf-8"))} == {"0"}
    assert {row["seed"] for row in table(Path("1.tsv").read_text("utf-8"))} == {"1"}


def test_alignment_of_several_files_and_items_without_evidence(run, small, caplog):
    Path("other.csv").write_text("phenomenon,prompt,target,foil,evidence\n\x1b[1m,The cat,sat,set,cat\n", "utf-8")
    result = run("evaluate", "alignment", small, "other.csv", MODEL, *DELTA_LP)
    assert "1 of 3 items left out: no evidence in its prompt" in caplog.text
    assert "small: 1 items" in result.stdout
    assert "⟨U+001B⟩[1m: 1 items" in result.stdout
    assert "<all>: 2 items" in result.stdout
    Path("none.csv").write_text("prompt,target,foil,evidence\nThe cat,sat,set,dog\n", "utf-8")
    assert "none of 1 items has evidence" in refused(run("evaluate", "alignment", "none.csv", MODEL, *DELTA_LP))


def test_alignment_compares_over_the_kept_sources(done, run, small):
    """The evidence is all that the prompt has within five tokens; without a length, "The" is there too."""
    names = ("occlusion", "integrated_gradients", "gradient_norm")
    measures = [part for name in names for part in ("--measure", name)]
    asked = (small, MODEL, *measures, "--decomposition-length", 5, "--limit", 1)
    done("evaluate", "alignment", *asked, "-o", "a.tsv")
    rows = table(Path("a.tsv").read_text("utf-8"))
    found = {row["measure"]: float(row["mean"]) for row in rows if row["metric"] == "dot_product"}
    assert found.pop("<random>") == 1
    scores = {name: [] for name in found}
    for row in table(done("contrast", *asked)):
        if row["source_token"] in ("Ġc", "at", "s"):
            scores[row["measure"]].append(float(row["score"]))
    assert len(scores) == len(names)
    for name, values in scores.items():
        assert_close(found[name], sum(values) / sum(map(abs, values)), rtol=0, atol=1e-5)
    message = "none of 1 items has evidence that is a word of the 2 most recent sources"
    assert message in refused(run("evaluate", "alignment", *asked, "--decomposition-length", 2))


def test_agreement(done):
    measures = (*DELTA_LP, "--measure", "decomposed_logit")
    text = done(
        "evaluate", "agreement", CORPUS, MODEL, *measures, "--decomposition-length", 6, "-o", "a.csv", "--format", "csv"
    )
    rows = table(Path("a.csv").read_text("utf-8"), ",")
    assert tuple(rows[0]) == ("measure", "other_measure", "metric", "targets", "mean", "low", "high", "seed")
    assert [row["metric"] for row in rows] == ["spearman", "kendall"]
    assert {row["targets"] for row in rows} == {"49"}
    assert "delta_lp ~ decomposed_logit" in text
    assert 0 < float(rows[1]["mean"]) < float(rows[0]["mean"]) < 1


def test_agreement_of_one_number_by_two_names(done):
    text = done("evaluate", "agreement", CORPUS, MODEL, *MEASURES, "--function", "logit", "--target", "last")
    assert text.split()[-7:] == ["1.000", "[1.000,", "1.000]", "1.000", "[1.000,", "1.000]", "1"]


def test_agreement_refuses(run):
    assert "delta_lp alone has nothing to agree with" in refused(run("evaluate", "agreement", CORPUS, MODEL, *DELTA_LP))
    assert "no predicted token has ranks" in refused(
        run("evaluate", "agreement", CORPUS, MODEL, *MEASURES, "--target", "0")
    )


@pytest.mark.parametrize("command", [("score",), ("contrast",), ("evaluate", "agreement"), ("evaluate", "alignment")])
def test_a_measure_that_is_named_twice(run, command):
    message = "the measure delta_lp is asked for more than once: name every measure once"
    texts = ITEMS if command[-1] in ("contrast", "alignment") else CORPUS
    assert message in refused(run(*command, texts, MODEL, *MEASURES, *DELTA_LP))


@needs_shared
def test_blimp_as_it_is(run):
    paths = [SHARED / "blimp" / f"{name}.csv" for name in ("anaphor_gender_agreement", "ioi_dataset")]
    result = run("evaluate", "alignment", *paths, "demo-gpt2", *DELTA_LP, "--limit", 5)
    assert result.exit_code == 0, result.output
    assert "ioi_dataset: 5 items" in result.stdout
    assert "<all>: " in result.stdout


def test_one_item_inline(run, done):
    texts = ("--prompt", "The keys to the cabinet", "--target", "were", "--foil", "was")
    Path("items.csv").write_text("prompt,target,foil\nThe keys to the cabinet,were,was\n")
    inline, from_file = (
        done("contrast", *source, MODEL, "--measure", "delta_lp", "-q").splitlines()
        for source in (texts, ["items.csv"])
    )
    assert [line.split("\t")[2:] for line in inline] == [line.split("\t")[2:] for line in from_file]
    for arguments, said in (
        ((*texts[:4], MODEL), "--prompt, --target and --foil go together"),
        ((*texts, "items.csv", MODEL), "give either ITEMS or --prompt"),
        ((MODEL,), "missing argument: expected ITEMS MODEL"),
        (texts, "missing argument: expected ITEMS MODEL"),
        ((*texts[:5], "were", MODEL), "target and foil are both 'were'"),
    ):
        result = run("contrast", *arguments)
        assert result.exit_code == 2, arguments
        assert said in result.stderr
