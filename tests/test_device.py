"""Where tensors are: everything runs on a device of its own, and gives what it gives on the CPU."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from decomp.measures import SCORES, GradientOptions, Request, Text
from tests.conftest import ROOT
from tests.pretend import OnDevice, pretending
from tests.variants import make_pair, random_ids

IDS = random_ids(7)
FOILS = random_ids(7, seed=7)[1:]


def test_the_pretend_device_refuses_what_a_real_one_does():
    with pretending():
        there, here = torch.arange(3, device="cuda"), torch.arange(3)
        assert [x.device.type for x in (there, there + 1, there.cpu(), here.to("cuda"), there[here])] == [
            *("cuda", "cuda", "cpu", "cuda", "cuda")
        ]
        for mixed in (lambda: there + here, lambda: here[there], lambda: torch.stack([there, here])):
            with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
                mixed()
        with pytest.raises(TypeError, match="copy it to the CPU first"):
            np.asarray(there)
        layer = nn.Linear(3, 2).to("cuda")
        assert layer.weight.device.type == "cuda"
        with pytest.raises(RuntimeError, match="same device"):
            layer(torch.ones(3))
    assert not isinstance(torch.ones(3) + 1, OnDevice)


@pytest.mark.parametrize("family", ["opt-post-norm", "gpt2", "llama", "gpt_neox", "bloom", "gemma3", "mixtral"])
def test_every_measure_stays_on_the_device_of_its_model(family):
    _, model = make_pair(family)
    # Every measure where norms follow sums and where experts are; of the others those that go each way.
    names = SCORES if family in ("opt-post-norm", "mixtral") else ("delta_lp", "integrated_gradients", "occlusion")
    options = Request(gradients=GradientOptions(steps=2, neighbors=4))
    expected = {name: score([Text(IDS, range(6), FOILS)], options, model) for name, score in measures(names)}
    with pretending():
        model = model.to("cuda")
        for name, score in measures(names):
            result = score([Text(IDS.to("cuda"), range(6), FOILS.to("cuda"))], options, model)
            assert result.device.type == "cuda", name
            assert_close(result.cpu(), expected[name], rtol=0, atol=1e-12)


def measures(names):
    for name in names:

        def score(texts, options, model, measure=SCORES[name]):
            ((result,),) = measure(model, texts, options)
            return result.scores

        yield name, score


NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
DATA = ROOT / "data"
GPT2, OPT = "demo-gpt2", "demo-opt"
COMMANDS = [
    ("score", "text.txt", OPT, "--measure", "delta_lp", "--measure", "input_x_gradient", "--unit", "word"),
    ("contrast", "items.csv", GPT2, "--measure", "decomposed_logit", "--measure", "input_x_gradient"),
    ("decompose", "text.txt", OPT, 4, "--output-dir", "stored"),
    ("decompose", "text.txt", GPT2, 4, "--output-dir", "stored", "--format", "pt"),
    ("deltalp", "text_demo-opt_0", OPT, "--output-dir", "stored", "--format", "tsv"),
    ("deltalp", "text_demo-gpt2_0", GPT2, "--output-dir", "stored", "--format", "tsv"),
    ("layers", "facts.jsonl", OPT, "--measure", "gradient_x_activation", "--measure", "direct"),
    ("neurons", "find", "facts.jsonl", GPT2, "--steps", 2, "-o", "neurons.tsv"),
    ("neurons", "check", "facts.jsonl", GPT2, "neurons.tsv"),
    ("edges", "score", "pairs.json", GPT2, "--mask-value", 0.5, "-o", "edges.tsv"),
    ("edges", "check", "edges.tsv", "pairs.json", GPT2, "--random", 1, "--keep", 1),
    ("evaluate", "alignment", "items.csv", GPT2, "--measure", "delta_lp", "--measure", "input_x_gradient"),
    ("evaluate", "faithfulness", "text.txt", OPT, "--measure", "delta_lp"),
    ("evaluate", "agreement", "text.txt", OPT, "--measure", "delta_lp", "--measure", "occlusion"),
]


def test_every_command_runs_on_a_device(done):
    Path("text.txt").write_text("The cat sat on the mat.\n", "utf-8")
    for name, lines in {"items.csv": 3, "facts.jsonl": 2}.items():
        source = DATA / name.replace("items", "contrast")
        Path(name).write_text("".join(source.read_text("utf-8").splitlines(True)[:lines]), "utf-8")
    pairs = json.loads((DATA / "pronouns.json").read_text("utf-8"))
    Path("pairs.json").write_text(json.dumps({**pairs, "prompts": pairs["prompts"][:2]}), "utf-8")
    here = {command: done(*command) for command in COMMANDS}
    with pretending():
        for command, expected in here.items():
            overwrite = () if command[0] not in ("decompose",) and "-o" not in command else ("--overwrite",)
            device = () if command[0] == "deltalp" else ("--device", "cuda")
            there = done(*command, *device, *overwrite)
            assert NUMBER.sub("", there) == NUMBER.sub("", expected), command
            results = [torch.tensor([float(x) for x in NUMBER.findall(text)]) for text in (there, expected)]
            assert_close(*results, rtol=1e-4, atol=1e-5)
