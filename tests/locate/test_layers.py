"""Layer scores against separate hooks, and direct shares against their definition."""

import csv
import io
import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from decomp.locate.facts import Fact
from decomp.locate.layers.rows import LayerRow, aggregate
from decomp.locate.layers.scoring import COMPONENTS, direct_shares, gradient_x_activation
from tests.commands import MODEL, refused
from tests.conftest import ROOT
from tests.variants import VARIANTS, make_pair, random_ids

FACTS = str(ROOT / "data" / "facts.jsonl")
SOME = ["opt", "opt-post-norm", "opt-gelu", "gpt2", "gpt2-relu"]


def make_fact(length, seed):
    return Fact(random_ids(length, seed), ("t",) * length, ("further",) * length, 5 + seed, 40 + seed, True)


FOUR = [make_fact(length, seed) for seed, length in enumerate((9, 3, 7, 12))]


def layers_of(plain):
    """The modules of a plain model whose outputs are the components', by layer."""
    if hasattr(plain, "transformer"):
        return [{"mlp": b.mlp, "attention": b.attn, "residual": b} for b in plain.transformer.h]
    return [{"mlp": b.fc2, "attention": b.self_attn, "residual": b} for b in plain.model.decoder.layers]


def separately(plain, fact, component, layer):
    """Gradient × activation of one layer: a hook of its own, a pass of its own."""
    kept = {}

    def replace(module, args, output):
        first = output[0] if isinstance(output, tuple) else output
        kept["output"] = first.detach().requires_grad_()
        return (kept["output"], *output[1:]) if isinstance(output, tuple) else kept["output"]

    handle = layers_of(plain)[layer][component].register_forward_hook(replace)
    logits = plain(fact.ids[None]).logits[0, -1]
    handle.remove()
    (logits[fact.token] - logits[fact.foil]).backward()
    return (kept["output"] * kept["output"].grad).sum(-1).view(-1).detach()


@pytest.mark.parametrize("variant", SOME)
def test_gradients_are_those_of_separate_passes(variant):
    plain, model = make_pair(variant)
    plain.set_attn_implementation("sdpa")
    for fact, scores in zip(FOUR, gradient_x_activation(model, FOUR, "contrast_logit", COMPONENTS, 2**30), strict=True):
        for component in COMPONENTS:
            expected = torch.stack([separately(plain, fact, component, layer) for layer in range(3)])
            assert_close(scores.components[component], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_batched_is_alone(variant):
    _, model = make_pair(variant)
    together = gradient_x_activation(model, FOUR, "log2_prob", COMPONENTS, 2**30)
    for memory in (2**30, 1, 150_000):
        for fact, scores in zip(FOUR, together, strict=False):
            (alone,) = gradient_x_activation(model, [fact], "log2_prob", COMPONENTS, memory)
            assert_close(scores.value, alone.value, rtol=0, atol=1e-12)
            assert_close(scores.components, alone.components, rtol=0, atol=1e-12)
        together = gradient_x_activation(model, FOUR, "log2_prob", COMPONENTS, memory)


def test_one_forward_and_one_backward_for_all_layers(monkeypatch):
    _, model = make_pair("gpt2")
    calls = []
    model.base_model.register_forward_hook(lambda *_: calls.append("forward"))
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **more: calls.append("backward") or grad(*args, **more))
    assert len(list(gradient_x_activation(model, FOUR, "contrast_logit", COMPONENTS, 2**30))) == 4
    assert calls == ["forward", "backward"]


def test_the_model_is_left_as_it_was():
    _, model = make_pair("opt")
    model.train()
    frozen = model.get_input_embeddings().weight.requires_grad_(False)
    list(gradient_x_activation(model, FOUR, "contrast_logit", COMPONENTS, 2**30))
    direct_shares(model, FOUR[0], "contrast_logit")
    assert model.training
    assert [p for p in model.parameters() if not p.requires_grad] == [frozen]
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("function", ["contrast_logit", "logit", "contrast_log2_prob"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_direct_shares_add_up(variant, function):
    plain, model = make_pair(variant)
    for fact in FOUR:
        logits = plain(fact.ids[None]).logits[0, -1].detach()
        expected = logits[fact.token] - (0 if function == "logit" else logits[fact.foil])
        expected /= math.log(2) if function == "contrast_log2_prob" else 1
        shares = direct_shares(model, fact, function)
        assert_close(shares.value, expected, rtol=0, atol=1e-10)
        total = shares.embedding + shares.bias + sum(part.sum() for part in shares.components.values())
        assert_close(total, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", SOME)
def test_direct_share_is_the_output_through_the_frozen_norms(variant):
    """Each output, forward through every later norm at its own σ, then the head."""
    plain, model = make_pair(variant)
    fact = FOUR[0]
    outputs, sigmas = {}, {}

    def keep_output(key):
        return lambda module, args, output: outputs.update(
            {key: (output[0] if isinstance(output, tuple) else output).detach().reshape(9, -1)[-1]}
        )

    def keep_sigma(module, args):
        x = args[0].reshape(9, -1)[-1].detach()
        sigmas[module] = (x.var(correction=0) + module.eps).sqrt()

    for layer, modules in enumerate(layers_of(plain)):
        for component in ("attention", "mlp"):
            modules[component].register_forward_hook(keep_output((component, layer)))
    for module in plain.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.register_forward_pre_hook(keep_sigma)
    plain(fact.ids[None])

    def through(norm, x):
        return norm.weight * (x - x.mean()) / sigmas[norm]

    post, gpt2 = variant == "opt-post-norm", hasattr(plain, "transformer")
    decoder = plain.transformer if gpt2 else plain.model.decoder
    shares = direct_shares(model, fact, "contrast_logit")
    for (component, layer), x in outputs.items():
        if post:
            blocks = decoder.layers
            norms = [n for b in blocks[layer:] for n in (b.self_attn_layer_norm, b.final_layer_norm)]
            for norm in norms[component == "mlp" :]:
                x = through(norm, x)
        else:
            x = through(decoder.ln_f if gpt2 else decoder.final_layer_norm, x)
        if not gpt2 and decoder.project_out is not None:
            x = decoder.project_out(x)
        head = plain.get_output_embeddings().weight
        expected = ((head[fact.token] - head[fact.foil]) @ x).detach()
        assert_close(shares.components[component][layer], expected, rtol=0, atol=1e-10)


def test_direct_needs_a_linear_function():
    _, model = make_pair("opt")
    with pytest.raises(ValueError, match="log2_prob is not: choose one of logit, contrast_logit, contrast_log2_prob"):
        direct_shares(model, FOUR[0], "log2_prob")


def row(item, role, score, layer=0):
    return LayerRow(item, "m", "mlp", layer, 0, "t", role, "logit", 0.0, score)


def test_aggregate_means_tokens_then_items():
    rows = [row(0, "further", 1.0), row(0, "further", 3.0), row(1, "further", 10.0), row(1, "last", 5.0, layer=1)]
    further, last = aggregate(rows, 0.95, seed=3)
    assert further[:6] == ("m", "mlp", 0, "further", 2, 6.0)
    assert further[6:] == (2.0, 10.0, 3)
    assert last == ("m", "mlp", 1, "last", 1, 5.0, 5.0, 5.0, 3)


def table(text):
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))


def test_command(done):
    rows = table(done("layers", FACTS, MODEL, "--component", "attention", "--component", "mlp", "--dtype", "float64"))
    assert tuple(rows[0]) == LayerRow._fields
    assert {(r["component"], r["layer"]) for r in rows} == {(c, str(n)) for c in ("mlp", "attention") for n in range(3)}
    assert {r["item"] for r in rows} == {str(n) for n in range(12)}
    assert rows[0]["position"] == "-1"
    assert rows[0]["role"] == "bos"
    bare = table(done("layers", FACTS, MODEL, "--no-bos"))
    assert bare[0]["position"] == "0"


def test_command_direct_adds_up(done):
    rows = table(done("layers", FACTS, MODEL, "--measure", "direct", "--dtype", "float64"))
    for item in range(12):
        mine = [r for r in rows if r["item"] == str(item)]
        assert [r["component"] for r in mine][:: len(mine) - 1] == ["embedding", "bias"]
        assert abs(sum(float(r["score"]) for r in mine) - float(mine[0]["value"])) < 1e-10


def test_command_aggregate_and_plot(done):
    text = done("layers", FACTS, MODEL, "--measure", "gradient_x_activation", "--measure", "direct", "--aggregate")
    rows = table(text)
    assert {r["component"] for r in rows} == {"mlp", "attention", "embedding", "bias"}
    assert all(float(r["low"]) <= float(r["mean"]) <= float(r["high"]) for r in rows)
    for name in ("map.png", "map.svg"):
        done("layers", FACTS, MODEL, "--measure", "direct", "--component", "residual", "--plot", name)
    assert Path("map.png").read_bytes().startswith(b"\x89PNG")
    before = Path("map.svg").read_bytes()
    assert b"<svg" in before
    done("layers", FACTS, MODEL, "--measure", "direct", "--component", "residual", "--plot", "map.svg", "--overwrite")
    assert Path("map.svg").read_bytes() == before


def test_command_refuses(run, monkeypatch):
    assert "unknown function 'magic'" in refused(run("layers", FACTS, MODEL, "--function", "magic"))
    assert "linear in the logits, prob is not" in refused(
        run("layers", FACTS, MODEL, "--measure", "direct", "--function", "prob")
    )
    assert "map.gif must be a picture, .png or .svg" in refused(run("layers", FACTS, MODEL, "--plot", "map.gif"))
    assert "can't read nothing.jsonl" in refused(run("layers", "nothing.jsonl", MODEL))
    Path("map.png").write_text("")
    assert "map.png exists: give --overwrite" in refused(run("layers", FACTS, MODEL, "--plot", "map.png"))
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert "pictures need matplotlib: pip install" in refused(run("layers", FACTS, MODEL, "--plot", "new.png"))
