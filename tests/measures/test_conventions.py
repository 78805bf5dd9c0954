"""What --convention sets: data that is valid, options that win over it, numbers as the other tools have them."""

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    LLMAttribution,
    LLMGradientAttribution,
    TextTokenInput,
)
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

import decomp
from decomp.measures import SCORES
from decomp.measures.conventions import CONVENTIONS
from decomp.measures.options import FAMILIES, begins_with_bos, request_from
from tests.commands import MODEL, refused, table
from tests.conftest import ROOT

TEXT = ("--text", "The cat sat on the mat", "demo-gpt2", "--dtype", "float64")


@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=lambda convention: convention.name)
def test_conventions_are_options_there_are(convention):
    known = {field.name: field for family in FAMILIES.values() for field in fields(family)}
    assert set(convention.options) <= {"bos", *known}
    request = request_from({"convention": convention.name})
    for name, value in convention.options.items():
        if name != "bos":
            (family,) = (part for part in FAMILIES if hasattr(getattr(request, part), name))
            assert getattr(getattr(request, family), name) == value
    assert begins_with_bos({"convention": convention.name}) == convention.options.get("bos", True)
    for measure, function in convention.functions.items():
        assert function in SCORES[measure].functions
        assert f"contrast_{function}" in SCORES[measure].functions


def test_what_is_given_wins():
    request = request_from({"convention": "inseq", "steps": 7, "function": "logit"})
    assert (request.gradients.steps, request.gradients.reduce, request.gradients.dig_steps) == (7, "norm", "points")
    assert SCORES["integrated_gradients"].function_of(request) == "logit"
    assert SCORES["integrated_gradients"].function_of(request_from({"convention": "inseq"})) == "prob"
    assert SCORES["delta_lp"].function_of(request_from({"convention": "inseq"})) == "log2_prob"
    with pytest.raises(ValueError, match="unknown convention 'ours': choose one of decomp, paper"):
        request_from({"convention": "ours"})


def rows_of(done, *asked):
    return [
        (row["source_token"], row["measure"], float(row["score"]))
        for row in table(done("score", *TEXT, "--target", 5, *asked))
    ]


def test_a_convention_is_its_options(done):
    measures = ("--measure", "integrated_gradients", "--measure", "gradient_norm", "--measure", "occlusion")
    adopted = rows_of(done, *measures, "--convention", "inseq", "--steps", 5)
    spelt = ("--reduce", "norm", "--norm", "l2", "--steps", 5, "--baseline", "unk", "--dig-steps", "points")
    assert adopted == rows_of(done, *measures, *spelt, "--neighbors", 50, "--no-bos", "--function", "prob")
    assert {measure for _, measure, _ in adopted} == {f"{name}:prob" for name in measures[1::2]}
    assert adopted[0][0] == "The"
    other = rows_of(done, *measures, "--convention", "inseq", "--bos", "--steps", 5, "--function", "logit")
    assert other == rows_of(done, *measures, *spelt, "--neighbors", 50, "--function", "logit")
    options = {"convention": "inseq", "steps": 5, "dtype": "float64"}
    python = decomp.score("The cat sat on the mat", "demo-gpt2", measures[1::2], **options)
    assert_close(list(python.select(position=5)["score"]), [score for *_, score in adopted], rtol=0, atol=1e-12)
    done("score", *TEXT, "--measure", "occlusion", "--convention", "inseq", "-o", "table.tsv")
    made = json.loads(Path("table.tsv.meta.json").read_text("utf-8"))["made"]["options"]
    assert {**made, **CONVENTIONS["inseq"].options} == made


def test_contrasts_attribute_the_contrast_of_the_same(done, tmp_path):
    (tmp_path / "items.csv").write_text("prompt,target,foil\nThe keys to the cabinet,were,was\n", "utf-8")
    measures = ("--measure", "gradient_norm", "--measure", "occlusion", "--measure", "delta_lp")
    rows = table(done("contrast", "items.csv", "demo-gpt2", *measures, "--convention", "interpret-lm"))
    assert list(dict.fromkeys(row["measure"] for row in rows)) == [
        "gradient_norm:contrast_logit",
        "occlusion:contrast_prob",
        "delta_lp:contrast_log2_prob",
    ]
    assert rows[0]["source_token"] == "The"


def test_captum_has_the_same_numbers(done):
    """Scores of the first token after the prompt, as its attributions for language models give them, in nats there."""
    folder = ROOT / "data" / "demo-gpt2"
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt, target = "The cat sat on the", " mat"
    layer, given = plain.transformer.wte, TextTokenInput(prompt, tokenizer)
    gradients = {
        "integrated_gradients": LayerIntegratedGradients(plain, layer),
        "input_x_gradient": LayerGradientXActivation(plain, layer),
    }
    expected = {
        name: LLMGradientAttribution(method, tokenizer).attribute(given, target=target).token_attr[0]
        for name, method in gradients.items()
    }
    expected["occlusion"] = (
        LLMAttribution(FeatureAblation(plain), tokenizer).attribute(given, target=target).token_attr[0]
    )
    for name, attributions in expected.items():
        rows = rows_of(done, "--measure", name, "--convention", "captum")
        scores = [score for token, _, score in rows if not token.startswith("<")]
        assert_close(torch.tensor(scores), attributions.float() / math.log(2), rtol=1e-4, atol=1e-6)


def test_tokens_by_their_ids(run, done):
    by_id, by_name = (
        rows_of(done, "--measure", "occlusion", "--replacement", name) for name in ("id:0", "<|endoftext|>")
    )
    assert by_id == by_name
    message = "there is no token 99999: the tokenizer has "
    assert message in refused(
        run("score", "--text", "The cat", MODEL, "--measure", "occlusion", "--replacement", "id:99999")
    )


@pytest.mark.parametrize("command", ["score", "evaluate faithfulness", "evaluate agreement"])
def test_help_lists_functions_that_are_taken(done, command):
    assert "contrast_" not in done(*command.split(), "--help")


@pytest.mark.parametrize("command", ["contrast", "evaluate alignment"])
def test_help_lists_contrasts(done, command):
    words = " ".join(done(*command.split(), "--help").split())
    assert "Function that is attributed: contrast_logit, contrast_log2_prob, contrast_prob." in words


def test_measures_show_the_conventions(done):
    words = " ".join(done("measures").split())
    for convention in CONVENTIONS.values():
        assert f"{convention.name} {convention.line}" in words
        assert convention.as_options() in words
