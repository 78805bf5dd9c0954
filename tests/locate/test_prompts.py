"""Prompt pairs, good and bad."""

import json

import pytest
import torch
from torch.testing import assert_close

from decomp.locate.edges.prompts import read_prompts
from decomp.models.loading import load_config, load_tokenizer
from tests.conftest import ROOT

GOOD = {"clean": "I saw the man", "corrupt": "I saw the boy", "answers": [" he", " who"], "wrong_answers": [" she"]}


@pytest.fixture(scope="module")
def model():
    return load_tokenizer("demo-opt"), load_config("demo-opt")


@pytest.fixture
def read(model, tmp_path):
    def read(content, **options):
        path = tmp_path / "p.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return read_prompts(path, *model, **options)

    return read


def test_pairs(read, model):
    tokenizer, _ = model
    (pair,) = read({"prompts": [GOOD], "seq_labels": ["ignored"]})
    for name in ("clean", "corrupt"):
        ids = tokenizer(GOOD[name], add_special_tokens=False)["input_ids"]
        assert_close(getattr(pair, name), torch.tensor([tokenizer.bos_token_id, *ids]))
    assert tokenizer.convert_ids_to_tokens(pair.answers.tolist()) == ["Ġhe", "Ġwho"]
    assert tokenizer.convert_ids_to_tokens(pair.wrong_answers.tolist()) == ["Ġshe"]
    (bare,) = read({"prompts": [GOOD]}, bos=False)
    assert_close(bare.clean, pair.clean[1:])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompts": [', r"p.json is not JSON: "),
        ("[]", r'p.json must be an object {"prompts": \[...\]}'),
        ("{}", r'p.json must be an object {"prompts": \[...\]}'),
        ('{"prompts": []}', "p.json has no prompts"),
        ('{"prompts": {"a": 1}}', "p.json has no prompts"),
        ('{"prompts": ["a"]}', "p.json, prompt 0 must be an object with clean, corrupt, answers, wrong_answers, it is"),
        ({"prompts": [GOOD, {**GOOD, "clean": 3}]}, "prompt 1: 'clean' must be a string, it is 3"),
        ({"prompts": [{**GOOD, "answers": " he"}]}, "prompt 0: 'answers' must be a list of strings, it is \" he\""),
        ({"prompts": [{**GOOD, "wrong_answers": [1]}]}, r"'wrong_answers' must be a list of strings, it is \[1\]"),
        ({"prompts": [{**GOOD, "answers": []}]}, "prompt 0 has no answers: give at least one"),
        (
            {"prompts": [{**GOOD, "wrong_answers": [" she", " who"]}]},
            "prompt 0: ' who' is given twice, as an answer and a wrong answer: give each once",
        ),
        ({"prompts": [{**GOOD, "answers": [" he", " he"]}]}, "prompt 0: ' he' is given twice, as an answer"),
        (
            {"prompts": [GOOD, {**GOOD, "corrupt": "I saw the little boy"}]},
            r"prompt 1: clean has 4 tokens, corrupt 5, .* as many: I Ġsaw Ġthe Ġman \| I Ġsaw Ġthe Ġlittle Ġboy",
        ),
        (
            {"prompts": [{**GOOD, "answers": [" queen"]}]},
            r"prompt 0: answers must be of one token each, ' queen' is 2 \(Ġqu een\); most begin with a space",
        ),
        ({"prompts": [{**GOOD, "wrong_answers": [""]}]}, "prompt 0: wrong_answers is blank: give some text"),
        ({"prompts": [{**GOOD, "answers": [" he", " "]}]}, "prompt 0: answers is blank: give some text"),
        ({"prompts": [{**GOOD, "clean": "", "corrupt": ""}]}, "prompt 0: the prompts have no tokens"),
        (
            {"prompts": [GOOD, {**GOOD, "clean": "a " * 600, "corrupt": "I " * 600}]},
            r"prompt 1 has \d+ tokens, the model has 512 positions: shorten it",
        ),
    ],
)
def test_bad_input(read, content, message):
    with pytest.raises(ValueError, match=message):
        read(content)


def test_missing_file(model, tmp_path):
    with pytest.raises(ValueError, match=r"can't read .*none.json"):
        read_prompts(tmp_path / "none.json", *model)


@pytest.mark.parametrize("name", ["demo-opt", "demo-gpt2"])
def test_shipped_pairs(name):
    pairs = read_prompts(ROOT / "data" / "pronouns.json", load_tokenizer(name), load_config(name))
    assert len(pairs) == 8
    assert {len(pair) for pair in pairs} == {9}


def test_given_batches(read):
    prompts = {"prompts": [{**GOOD, "kind": kind} for kind in "aab"]}
    assert [pair.batch for pair in read(prompts)] == [None] * 3
    assert [pair.batch for pair in read(prompts, batch_by="2")] == ["0", "0", "1"]
    assert [pair.batch for pair in read(prompts, batch_by="kind")] == ['"a"', '"a"', '"b"']
    with pytest.raises(ValueError, match="prompt 0 has no 'sort', which batches are given by: it has clean, "):
        read(prompts, batch_by="sort")
    with pytest.raises(ValueError, match="a batch has at least 1 prompt, not 0"):
        read(prompts, batch_by="0")
