"""Measures, functions, and text that the model writes, as a person asks `decomp score` for them."""

import logging
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import decomp
from tests.commands import refused, table
from tests.conftest import ROOT
from tests.variants import make_pair, random_ids

MODEL = str(ROOT / "tests" / "golden" / "opt-tiny-pre")
CORPUS = str(ROOT / "tests" / "golden" / "golden.sentitems")
TEXT = ("score", "--text", "The cat", MODEL)
GRADIENTS = ("gradient_norm", "input_x_gradient", "integrated_gradients", "discretized_ig")


def measures(*names):
    return [word for name in names for word in ("--measure", name)]


def test_several_measures_in_one_table(done):
    names = ["delta_lp", "decomposed_logit", *GRADIENTS]
    rows = table(done(*TEXT, *measures(*names), "--steps", 2, "--neighbors", 5, "-q"))
    assert list(dict.fromkeys(row["measure"] for row in rows)) == names
    per_measure = [[row for row in rows if row["measure"] == name and row["distance"]] for name in names]
    keys = [[(row["position"], row["source_position"], row["log2_prob"]) for row in part] for part in per_measure]
    assert all([key[:2] for key in part] == [key[:2] for key in keys[0]] for part in keys)
    extra = {(row["measure"], row["source_token"]) for row in rows if not row["distance"]}
    assert extra == {
        ("decomposed_logit", "<bias>"),
        ("integrated_gradients", "<residual>"),
        ("discretized_ig", "<residual>"),
    }


def test_decomposed_logit_rows_sum_to_the_logit(done):
    rows = table(done("score", CORPUS, MODEL, *measures("decomposed_logit"), "--decomposition-length", 5))
    model, tokenizer = decomp.load_model(MODEL)
    article = decomp.read_articles(CORPUS)
    (window,) = decomp.windows_of(article, tokenizer, model.config)
    with torch.no_grad():
        logits = model(window.ids[None]).logits[0, :-1].gather(1, window.ids[1:, None])[:, 0]
    sums = torch.zeros_like(logits)
    for row in rows:
        sums[int(row["position"])] += float(row["score"])
    assert_close(sums, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", GRADIENTS)
def test_windows_together_are_windows_alone(done, tmp_path, name):
    corpus = tmp_path / "short.txt"
    corpus.write_text("!ARTICLE\nOne of them.\n!ARTICLE\nA\n!ARTICLE\nAnother, longer one.\n")
    options = (corpus, MODEL, *measures(name), "--steps", 2, "--neighbors", 4, "--dtype", "float64", "-q")
    alone, together = (table(done("score", *options, "--batch-size", size)) for size in (1, 3))
    assert [{**row, "score": 0} for row in alone] == [{**row, "score": 0} for row in together]
    values = [torch.tensor([float(row["score"]) for row in side], dtype=torch.float64) for side in (alone, together)]
    assert_close(*values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["delta_lp", *GRADIENTS])
def test_a_window_without_a_prediction(done, tmp_path, name):
    corpus = tmp_path / "short.txt"
    corpus.write_text("!ARTICLE\nA\n!ARTICLE\nTwo words\n")
    rows = table(done("score", corpus, MODEL, *measures(name), "--no-bos", "--steps", 2, "--neighbors", 4, "-q"))
    assert {row["article"] for row in rows} == {"1"}


def test_functions(done, run):
    plain = table(done(*TEXT, "--function", "log2_prob"))
    assert plain == table(done(*TEXT))
    other = table(done(*TEXT, "--function", "prob"))
    assert {row["measure"] for row in other} == {"delta_lp:prob"}
    for row, log_row in zip(other, plain, strict=True):
        log2_prob, delta = float(log_row["log2_prob"]), float(log_row["score"])
        assert abs(float(row["score"]) - (2**log2_prob - 2 ** (log2_prob - delta))) < 1e-6
    assert "contrast_logit contrasts the next token with a foil" in refused(run(*TEXT, "--function", "contrast_logit"))
    assert "unknown function 'odds'" in refused(run(*TEXT, "--function", "odds"))
    line = refused(run(*TEXT, *measures("decomposed_logit"), "--function", "prob"))
    assert "decomposed_logit takes the functions logit, contrast_logit, contrast_log2_prob, not prob" in line


def test_baselines(done, run):
    options = (*TEXT, *measures("integrated_gradients"), "--quiet")
    scores = {}
    for baseline in ("zero", "mean", "unk", "e"):
        scores[baseline] = [row["score"] for row in table(done(*options, "--baseline", baseline))]
    assert len({tuple(values) for values in scores.values()}) == len(scores)
    assert [row["score"] for row in table(done(*options))] == scores["zero"]
    assert "'xyzzy' is " in refused(run(*options, "--baseline", "xyzzy"))
    assert "both ends among its nodes" in run(*options, "--quadrature", "trapezoid", "--steps", 1).stderr
    assert "have no position" in run(*TEXT, *measures("discretized_ig"), "--positions").stderr


def test_residual_warning_is_a_line_unless_quiet(run, caplog):
    options = (*TEXT, *measures("integrated_gradients"), "--steps", 1)
    run(*options, "--quiet")
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        run(*options)
    assert "integrated_gradients: the sources' shares miss" in caplog.text


def test_text_that_the_model_writes(run, done):
    result = run(*TEXT, "--max-new-tokens", 4)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("the model writes '")
    rows = table(result.stdout)
    _, tokenizer = decomp.load_model(MODEL)
    prompt = len(tokenizer("The cat", add_special_tokens=False)["input_ids"])
    assert sorted({int(row["position"]) for row in rows}) == list(range(prompt, prompt + 4))
    assert {row["source_position"] for row in rows} == {str(k) for k in range(-1, prompt + 3)}
    assert rows == table(done(*TEXT, "--max-new-tokens", 4, "--seed", 5))
    sampled = (*TEXT, "--max-new-tokens", 8, "--sample")
    first, again, other = (done(*sampled, "--seed", seed) for seed in (1, 1, 2))
    assert first == again != other
    last = table(done(*TEXT, "--max-new-tokens", 4, "--target", "last"))
    assert {int(row["position"]) for row in last} == {prompt + 3}


def test_text_instead_of_a_file(done, tmp_path):
    corpus = tmp_path / "c.txt"
    corpus.write_text("!ARTICLE\nThe cat\n")
    assert done(*TEXT) == done("score", corpus, MODEL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--text", "The", CORPUS, MODEL), "give either INPUT_FILE or --text, not both"),
        ((MODEL,), "expected INPUT_FILE MODEL, or --text TEXT MODEL"),
        (("--text", "The"), "expected INPUT_FILE MODEL, or --text TEXT MODEL"),
        ((CORPUS, MODEL, "--max-new-tokens", 2), "--max-new-tokens continues a --text: give one"),
        (("--text", "The", MODEL, "--max-new-tokens", 100), "are more than the model's 64 positions: shorten the text"),
        (("--text", "The " * 99, MODEL, "--max-new-tokens", 1), "the text is longer than the model's 64 positions"),
        (("--text", "", MODEL, "--max-new-tokens", 1), "--text has no text: give some"),
    ],
)
def test_mistakes_with_text(run, arguments, message):
    assert message in refused(run("score", *arguments))


@pytest.mark.parametrize("variant", ["opt", "gpt2"])
def test_write_is_greedy_by_argmax(variant):
    plain, model = make_pair(variant)
    ids = random_ids(5)
    written = model.write(ids, 6)
    for new in written:
        with torch.no_grad():
            assert new == plain(ids[None]).logits[0, -1].argmax()
        ids = torch.cat([ids, new[None]])
    state = torch.random.get_rng_state()
    drawn = [model.write(ids, 6, sample=True, temperature=3.0, seed=seed).tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert_close(torch.random.get_rng_state(), state, rtol=0, atol=0)


def test_what_a_measure_refuses_leaves_standard_output_empty(run):
    options = ("--measure", "integrated_gradients", "--quadrature", "trapezoid", "--steps", 1)
    result = run("score", "--text", "a b c", "demo-opt", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "use 2 steps or more" in result.stderr


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--text", "", MODEL), "--text has no text: give some"),
        (("--text", "a", MODEL, "--no-bos"), "the text has no token to predict"),
        (
            ("--text", "The cat sat.", MODEL, "--span", 1000),
            "no window predicts 1000 tokens: take a --span of at most ",
        ),
        (
            ("--text", "The cat sat.", MODEL, "--span", 4, "--unit", "word"),
            "predicts 4 words: take a --span of at most 3",
        ),
    ],
)
def test_nothing_to_predict(run, asked, message):
    assert message in refused(run("score", *asked))
    assert message in refused(run("score", *asked, "-o", "out.tsv", "--run", "run"))
    assert not Path("out.tsv").exists()
    assert not Path("run").exists()
