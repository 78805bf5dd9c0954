"""Knowledge neurons against a loop over neurons, completeness, and what changing neurons changes."""

import csv
import io
import json
import math
import os
import re
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import decomp
from decomp.locate.neurons.checking import random_like, read_neurons, values_with
from decomp.locate.neurons.completions import Completion, Continuation, changing_neurons
from decomp.locate.neurons.finding import find_neurons, wider_cuts
from decomp.locate.neurons.items import Item, read_items
from decomp.locate.neurons.request import NeuronRequest
from decomp.locate.neurons.rows import NeuronRow, found, ranked, shares
from decomp.locate.neurons.scoring import NeuronScores, integrated_gradients
from decomp.locate.quadrature import linspace, riemann
from tests.commands import MODEL, refused
from tests.conftest import ROOT
from tests.variants import VARIANTS, make_pair, random_ids

FACTS, EDITS = ROOT / "data" / "facts.jsonl", ROOT / "data" / "edits.jsonl"
SHORT = [
    {"pre_text": "def f(a):\n    return a\n", "post_text": "def f(a):\n    return a + 1\n"},
    {"pre_text": "if (a) {\n  b();\n  c();\n}\n", "post_text": "if (a) {\n  c();\n}\n"},
]
SOME = ["opt", "opt-post-norm", "opt-gelu", "gpt2", "gpt2-relu"]
IDS = random_ids(12)
COMPLETION = Completion(IDS[:8], IDS[8:11])
PREDICTING = slice(7, 10)


def gradients(model, completion, function, quadrature, steps, memory, **more):
    request = NeuronRequest(function=function, quadrature=quadrature, steps=steps, memory=memory, **more)
    return integrated_gradients(model, completion, request, "items.jsonl, line 1")


def downs(plain):
    if hasattr(plain, "transformer"):
        return [block.mlp.c_proj for block in plain.transformer.h]
    return [block.fc2 for block in plain.model.decoder.layers]


def value_of(plain, function):
    """The attributed function of the three target tokens, from one plain pass."""
    log_probs = plain(IDS[None, :11]).logits[0, PREDICTING]
    if function == "logit":
        return sum(log_probs[j, y] for j, y in enumerate(COMPLETION.target))
    nats = sum(log_probs.log_softmax(-1)[j, y] for j, y in enumerate(COMPLETION.target))
    return nats.exp() if function == "prob" else nats / math.log(2)


def with_neurons(plain, function, layer, change):
    """The function after `change` of one layer's neurons, (tokens, neurons)."""

    def replace(module, args):
        return (change(args[0].reshape(11, -1)).view(args[0].shape),)

    handle = downs(plain)[layer].register_forward_pre_hook(replace)
    value = value_of(plain, function)
    handle.remove()
    return value


def neurons_of(plain, layer):
    kept = []
    with_neurons(plain, "logit", layer, lambda w: kept.append(w.detach().clone()) or w)
    return kept[0]


def slow_scores(plain, function, layer, steps):
    """IG_w = w/(m+1) · Σ_{i=0..m} ∂F(i·w/m)/∂w, one neuron of one position after the other."""
    w = neurons_of(plain, layer)
    scores = torch.zeros(3, w.shape[1], dtype=w.dtype)
    for i in range(steps + 1):
        for position in range(3):
            for neuron in range(w.shape[1]):
                one = (w[7 + position, neuron] * i / steps).requires_grad_()

                def scaled(full, one=one, position=position, neuron=neuron, i=i):
                    full = full.clone()
                    full[PREDICTING] = w[PREDICTING] * i / steps
                    full[7 + position, neuron] = one
                    return full

                (slope,) = torch.autograd.grad(with_neurons(plain, function, layer, scaled), one)
                scores[position, neuron] += w[7 + position, neuron] / (steps + 1) * slope
    return scores


@pytest.mark.parametrize(
    ("variant", "function"),
    [*(("opt-post-norm", function) for function in ("log2_prob", "prob", "logit")), ("gpt2-narrow", "prob")],
)
def test_scores_are_those_of_a_loop_over_neurons(variant, function):
    plain, model = make_pair(variant, **({"n_inner": 3} if variant.startswith("gpt2") else {"ffn_dim": 3}))
    plain.set_attn_implementation("sdpa")
    result = gradients(model, COMPLETION, function, "riemann", 2, 2**30)
    for layer in range(2):
        assert_close(result.scores[layer], slow_scores(plain, function, layer, 2), rtol=0, atol=1e-10)
    assert_close(result.value, value_of(plain, function).detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_value_without_a_layer(variant):
    plain, model = make_pair(variant)
    plain.set_attn_implementation("sdpa")

    def zero(w):
        w = w.clone()
        w[PREDICTING] = 0
        return w

    for quadrature in ("riemann", "gauss-legendre"):
        result = gradients(model, COMPLETION, "log2_prob", quadrature, 2, 2**30)
        expected = torch.stack([with_neurons(plain, "log2_prob", layer, zero) for layer in range(2)]).detach()
        assert_close(result.without, expected, rtol=0, atol=1e-10)
        assert_close(result.effect, result.value - expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", ["opt-gelu", "gpt2", "gpt2-tanh"])
def test_residual_shrinks_at_the_order_of_the_rule(variant):
    _, model = make_pair(variant)

    def residual(quadrature, steps):
        return gradients(model, COMPLETION, "log2_prob", quadrature, steps, 2**30).residual

    coarse, fine = residual("riemann", 200), residual("riemann", 400)
    assert_close(fine / coarse, torch.full_like(coarse, 201 / 401), rtol=0.02, atol=0)
    assert_close(residual("gauss-legendre", 48), torch.zeros_like(coarse), rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", ["olmo2", "gemma2"])
def test_norms_after_mlps_want_other_nodes(variant):
    """Such a norm leaps at zero: equal weights that begin there give scores that mean nothing."""
    _, model = make_pair(variant)
    for nodes, low, high in ((("riemann", 20), 1, 1e3), (("gauss-legendre", 200), 0, 1e-2)):
        result = integrated_gradients(model, COMPLETION, NeuronRequest(quadrature=nodes[0], steps=nodes[1]))
        assert low <= result.residual.abs().max() / result.effect.abs().max() < high
        assert result.incomplete == bool(low)


def test_residual_shrinks_with_kinks():
    """ReLU's slopes jump along the path: no rule does better than its spacing."""
    _, model = make_pair("opt")
    residuals = [
        gradients(model, COMPLETION, "log2_prob", "riemann", steps, 2**30).residual.abs().max()
        for steps in (20, 200, 2000)
    ]
    assert residuals[1] < 0.2 * residuals[0]
    assert residuals[2] < 0.2 * residuals[1]


def ups(plain):
    if hasattr(plain, "transformer"):
        return [block.mlp.c_fc for block in plain.transformer.h]
    return [block.fc1 for block in plain.model.decoder.layers]


def with_hook(plain, kind, layer, change, value):
    """A number of one pass after `change` of one layer's neurons (11, F), before or after their activation."""
    if kind == "activation":
        handle = downs(plain)[layer].register_forward_pre_hook(
            lambda _, args: (change(args[0].reshape(11, -1)).view(args[0].shape),)
        )
    else:
        handle = ups(plain)[layer].register_forward_hook(
            lambda _, args, output: change(output.reshape(11, -1)).view(output.shape)
        )
    result = value()
    handle.remove()
    return result


def token_value(plain, function, j):
    """The function of the j-th predicted token alone."""
    logits = plain(IDS[None, :11]).logits[0, 7 + j]
    token = COMPLETION.target[j]
    return {"prob": logits.softmax(0), "log2_prob": logits.log_softmax(0) / math.log(2)}[function][token]


@pytest.mark.parametrize("kind", ["activation", "pre-activation"])
@pytest.mark.parametrize("variant", ["opt-gelu", "gpt2-narrow"])
def test_tokens_scaled_separately(variant, kind):
    """knowledge-neurons: w/m · Σ_i ∂P(y_j | …)/∂w at i/(m − 1) · w, with the neurons where y_j is predicted."""
    plain, model = make_pair(variant, **({"n_inner": 3} if variant.startswith("gpt2") else {"ffn_dim": 3}))
    plain.set_attn_implementation("sdpa")
    steps, layer = 4, 1
    result = gradients(model, COMPLETION, "prob", "linspace", steps, 2**30, neurons=kind, tokens="separately")
    kept = []
    with_hook(plain, kind, layer, lambda w: kept.append(w.detach().clone()) or w, lambda: token_value(plain, "prob", 0))
    values, without = [], []
    for j in range(3):
        w, expected = kept[0][7 + j], 0
        for i in range(steps):
            leaf = (w * i / (steps - 1)).requires_grad_()

            def change(full, leaf=leaf, j=j):
                return torch.cat([full[: 7 + j], leaf[None], full[8 + j :]])

            value = with_hook(plain, kind, layer, change, lambda j=j: token_value(plain, "prob", j))
            expected = expected + w / steps * torch.autograd.grad(value, leaf)[0]
            without += [value.detach()] if i == 0 else []
        assert_close(result.scores[layer, j], expected, rtol=0, atol=1e-10)
        values.append(token_value(plain, "prob", j).detach())
    assert_close(result.value, sum(values), rtol=0, atol=1e-10)
    assert_close(result.without[layer], sum(without), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("variant", "kind", "tokens"),
    [
        ("gpt2", "activation", "together"),
        ("gpt2", "pre-activation", "separately"),
        ("opt-gelu", "activation", "separately"),
        ("opt-gelu", "pre-activation", "together"),
        ("opt-post-norm", "pre-activation", "separately"),
    ],
)
def test_every_kind_adds_up(variant, kind, tokens):
    _, model = make_pair(variant, **({"activation_function": "gelu"} if variant == "opt-post-norm" else {}))
    options = {"neurons": kind, "tokens": tokens}
    result = gradients(model, COMPLETION, "log2_prob", "gauss-legendre", 48, 2**30, **options)
    assert_close(result.residual, torch.zeros_like(result.residual), rtol=0, atol=1e-8)
    row = Continuation(model, COMPLETION).bytes_per_row()
    part = gradients(model, COMPLETION, "log2_prob", "gauss-legendre", 48, 7 * row, **options)
    assert_close(part.scores, result.scores, rtol=0, atol=1e-12)
    assert_close(part.without, result.without, rtol=0, atol=1e-12)


def test_pre_activation_neurons_are_changed_before_the_activation():
    plain, model = make_pair("gpt2")
    plain.set_attn_implementation("sdpa")
    chosen = torch.zeros(3, 96, dtype=torch.bool)
    chosen[1, ::3] = True

    def change(full):
        full = full.clone()
        full[PREDICTING] = torch.where(chosen[1], 2.0, 1.0) * full[PREDICTING]
        return full

    expected = with_hook(plain, "pre-activation", 1, change, lambda: value_of(plain, "log2_prob")).detach()
    _, after = values_with(model, COMPLETION, [(chosen, 2.0)], 2**30, "pre-activation")
    assert_close(after, expected, rtol=0, atol=1e-10)
    _, other = values_with(model, COMPLETION, [(chosen, 2.0)], 2**30)
    assert abs(after - other) > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"function": "odds"}, "unknown function 'odds': choose one of log2_prob, prob, logit"),
        ({"neurons": "gate"}, "unknown kind of neurons 'gate': choose one of activation, pre-activation"),
        ({"tokens": "first"}, "unknown way to scale tokens 'first': choose one of together, separately"),
        ({"threshold": math.nan}, "the threshold must be from 0 to 1, not nan"),
        ({"quadrature": "linspace", "steps": 1}, "linspace has both ends among its nodes: use 2 steps or more"),
        ({"memory": 1024}, "a completion of 3 tokens needs about .* more than the memory of 1 KiB"),
    ],
)
def test_bad_requests(options, message):
    _, model = make_pair("opt")
    item = Item(0, "line 1", "0", "", None, COMPLETION, None, True, ("a", "b", "c"))
    with pytest.raises(ValueError, match=message):
        list(find_neurons(model, [item], NeuronRequest(**options)))


def test_scores_that_are_no_numbers():
    _, model = make_pair("opt")
    with torch.no_grad():
        model.get_output_embeddings().weight[IDS[9]] = math.inf
    with pytest.raises(ValueError, match=r"items.jsonl, line 1: neuron 0 of layer 0 is nan, no finite number"):
        gradients(model, COMPLETION, "logit", "riemann", 2, 2**30)


def test_nodes():
    assert linspace(5) == riemann(4)
    assert riemann(4) == [(0, 0.2), (0.25, 0.2), (0.5, 0.2), (0.75, 0.2), (1, 0.2)]


@pytest.mark.parametrize("variant", SOME)
def test_memory_changes_nothing(variant):
    _, model = make_pair(variant)
    whole = gradients(model, COMPLETION, "log2_prob", "riemann", 6, 2**30)
    row = Continuation(model, COMPLETION).bytes_per_row()
    for memory in (row, 3 * row):
        part = gradients(model, COMPLETION, "log2_prob", "riemann", 6, memory)
        for name in ("scores", "value", "without"):
            assert_close(getattr(part, name), getattr(whole, name), rtol=0, atol=1e-12)


def test_a_context_of_one_token():
    plain, model = make_pair("gpt2")
    result = gradients(model, Completion(IDS[:1], IDS[1:3]), "log2_prob", "gauss-legendre", 3, 2**30)
    logits = plain(IDS[None, :2]).logits[0].log_softmax(-1)
    expected = (logits[0, IDS[1]] + logits[1, IDS[2]]).detach() / math.log(2)
    assert_close(result.value, expected, rtol=0, atol=1e-10)


def test_contrast_is_a_difference_of_both():
    _, model = make_pair("opt-gelu")
    sides = [Completion(IDS[:8], IDS[8:11]), Completion(IDS[:8], IDS[9:11])]
    target, foil = (gradients(model, side, "log2_prob", "gauss-legendre", 32, 2**30) for side in sides)
    both = target.minus(foil)
    assert both.scores.shape == (2, 5, 40)
    assert_close(both.scores.sum(1), target.scores.sum(1) - foil.scores.sum(1))
    assert_close(both.scores.sum((1, 2)), both.effect, rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", SOME)
@pytest.mark.parametrize("factor", [0.0, 2.0])
def test_changed_neurons_change_the_forward_exactly_there(variant, factor):
    """What reaches the down projections: the neurons times their factor, and what follows from it, no more."""
    plain, model = make_pair(variant)
    plain.set_attn_implementation("sdpa")
    chosen = torch.zeros(3, neurons_of(plain, 0).shape[1], dtype=torch.bool)
    chosen[1, ::3] = True
    chosen[2, 1::5] = True
    before, after = values_with(model, COMPLETION, [(chosen, factor)], 2**30)

    def change(layer, w, places):
        w = w.clone()
        w[places] = torch.where(chosen[layer], factor, 1.0) * w[places]
        return w

    handles = [
        down.register_forward_pre_hook(
            lambda _, args, n=n: (change(n, args[0].reshape(11, -1), PREDICTING).view(args[0].shape),)
        )
        for n, down in enumerate(downs(plain))
    ]
    expected = value_of(plain, "log2_prob").detach()
    for handle in handles:
        handle.remove()
    assert_close(before, value_of(plain, "log2_prob").detach(), rtol=0, atol=1e-10)
    assert_close(after, expected, rtol=0, atol=1e-10)
    assert abs(after - before) > 1e-4


@pytest.mark.parametrize("variant", ["opt", "gpt2"])
def test_only_the_row_that_is_changed_changes(variant):
    """Rows of a batch are independent, and hooks are gone afterwards."""
    _, model = make_pair(variant)
    seen = []

    def double_first(layer, w):
        w = w.clone()
        w[0] *= 2 if layer == 1 else 1
        seen.append(w)
        return w

    continuation = Continuation(model, COMPLETION)
    with torch.no_grad():
        values = continuation("log2_prob", 2, double_first)
        plain = continuation("log2_prob", 2, lambda layer, w: w)
    assert_close(values[1], plain[1], rtol=0, atol=1e-12)
    assert abs(values[0] - plain[0]) > 1e-4
    assert_close(seen[0][0], seen[0][1], rtol=0, atol=1e-13)
    assert_close(seen[1][0], 2 * seen[1][1], rtol=0, atol=1e-13)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_hooks_are_gone_after_an_error():
    _, model = make_pair("gpt2")

    def fail(layer, w):
        raise RuntimeError

    with pytest.raises(RuntimeError), changing_neurons(model, 1, fail):
        model(IDS[None])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_found_and_shared():
    scores = torch.tensor([[1.0, 0.19, -5.0], [0.2, 0.5, 0.0]])
    first = found(scores, 0.2)
    assert first.tolist() == [[True, False, False], [True, True, False]]
    assert not found(-scores.abs(), 0.2).any()
    second = torch.tensor([[True, True, False], [False, True, False]])
    assert shares([first, second]).tolist() == [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0]]
    assert [list(part) for part in ranked(scores, first)] == [[1, 2, 3], [0, 4, 3]]


def test_random_neurons_are_as_many_in_the_same_layers():
    chosen = torch.zeros(4, 30, dtype=torch.bool)
    chosen[1, :7] = True
    chosen[3, 4] = True
    generator = torch.Generator().manual_seed(3)
    draws = [random_like(chosen, generator) for _ in range(50)]
    assert all(draw.sum(1).tolist() == [0, 7, 0, 1] for draw in draws)
    assert torch.stack(draws).sum(0)[1].min() > 2
    again = random_like(chosen, torch.Generator().manual_seed(3))
    assert_close(again, draws[0])


def test_minus_keeps_what_adds_up():
    a, b = (NeuronScores(torch.ones(2, n, 3), torch.tensor(5.0), torch.tensor([1.0, 2.0])) for n in (2, 1))
    assert a.minus(b).residual.tolist() == [3.0, 3.0]
    assert a.minus(b).effect.tolist() == [0.0, 0.0]


@pytest.fixture
def _short(done):
    """Files in the working folder."""
    Path("short.jsonl").write_text("".join(json.dumps(edit) + "\n" for edit in SHORT))
    Path("four.jsonl").write_text("".join(FACTS.read_text("utf-8").splitlines(keepends=True)[:4]))


def table(text, delimiter="\t"):
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


def test_command(done):
    rows = table(done("neurons", FACTS, MODEL, "--dtype", "float64", "--all"))
    assert rows == table(done("neurons", "find", FACTS, MODEL, "--dtype", "float64", "--all"))
    assert tuple(rows[0]) == NeuronRow._fields
    first = [row for row in rows if row["item"] == "0"]
    assert [int(row["rank"]) for row in first] == list(range(1, len(first) + 1))
    scores = [float(row["score"]) for row in first]
    assert scores == sorted(scores, reverse=True)
    for layer in {row["layer"] for row in first}:
        mine = [row for row in first if row["layer"] == layer]
        total = sum(float(row["score"]) for row in mine)
        assert total == pytest.approx(float(mine[0]["effect"]) + float(mine[0]["residual"]), abs=1e-10)
    kept = table(done("neurons", FACTS, MODEL, "--dtype", "float64", "--threshold", 0.5))
    largest = {row["item"]: float(row["score"]) for row in rows if row["rank"] == "1"}
    strong = [row for row in rows if float(row["score"]) >= 0.5 * largest[row["item"]]]
    assert kept == [{**row, "found": "True"} for row in strong]
    # With the default threshold, 0.2: --all says which.
    assert {row["found"] for row in rows} == {"True", "False"}
    assert {r["score"] for r in rows if r["found"] == "True"} > {r["score"] for r in kept}


@pytest.mark.usefixtures("_short")
def test_command_per_position_adds_up(done):
    options = (
        "neurons",
        "short.jsonl",
        MODEL,
        "--dtype",
        "float64",
        "--contrast",
        "--mask-level",
        "line",
        "--steps",
        3,
    )
    rows = table(done(*options))
    by_token = table(done(*options, "--per-position"))
    for row in rows[:20]:
        mine = [r for r in by_token if all(r[k] == row[k] for k in ("item", "layer", "neuron"))]
        assert sum(float(r["score"]) for r in mine) == pytest.approx(float(row["score"]), abs=1e-9)
    assert row["position"] == row["token"] == ""
    assert all(r["token"] for r in by_token)


@pytest.mark.usefixtures("_short")
def test_command_levels_and_masked_form(done):
    levels = [part for level in ("token", "line", "block") for part in ("--mask-level", level)]
    rows = table(done("neurons", "short.jsonl", MODEL, *levels, "--masked", "masked.jsonl", "--steps", 2, "--counts"))
    assert [(r["item"], r["level"], r["layer"]) for r in rows] == [
        (item, level, layer) for item in "01" for level in ("token", "line", "block") for layer in "012"
    ]
    lines = [json.loads(line) for line in Path("masked.jsonl").read_text("utf-8").splitlines()]
    assert [(line["item"], line["level"], line["cut"], line["masked"]) for line in lines] == [
        (0, "token", "token", "def f(a):\n    return a[MASK]\n"),
        (0, "line", "line", "def f(a):\n[MASK]"),
        (0, "block", "block", "[MASK]"),
        *((1, level, "block", "[MASK]") for level in ("token", "line", "block")),
    ]
    assert [line["new"] for line in lines][::2] == [" + 1", *[SHORT[n]["post_text"] for n in (0, 1)]]


def test_command_several_prompts_of_a_fact(done):
    prompts = ["The friend of Watson was Sherlock", "Baker Street was the home of Sherlock", "My friend Sherlock"]
    lines = [{"prompt": prompt, "target": "Holmes", "fact": "holmes"} for prompt in prompts]
    lines.append({"prompt": "It was a dark", "target": "night", "fact": "night"})
    Path("items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    every = table(done("neurons", "items.jsonl", MODEL, "--share", 0))
    finders = {}
    for row in every:
        finders.setdefault((row["fact"], row["layer"], row["neuron"]), set()).add(row["item"])
    for row in every:
        prompts = {"holmes": 3, "night": 1}[row["fact"]]
        share = len(finders[row["fact"], row["layer"], row["neuron"]]) / prompts
        assert float(row["share"]) == pytest.approx(share)
    strict = table(done("neurons", "items.jsonl", MODEL, "--share", 0.7))
    assert strict == [row for row in every if float(row["share"]) >= 0.7]
    assert 0 < len(strict) < len(every)


def test_shipped_edits():
    """What is cut from them can be put back; the levels that are cut wider than asked for."""
    _, tokenizer = decomp.load_model("demo-opt")
    items = read_items(EDITS, tokenizer, 2, 512, ["token", "line", "block"], contrast=False)
    edits = [json.loads(line) for line in EDITS.read_text("utf-8").splitlines()]
    for one in items:
        assert one.cut.masked.replace("[MASK]", one.cut.old) == edits[one.number]["pre_text"]
        assert one.cut.masked.replace("[MASK]", one.cut.new) == edits[one.number]["post_text"]
        assert tokenizer.decode(one.target.context[1:]) == one.cut.before
        assert tokenizer.decode(one.target.target) == one.cut.new
    wider = [(one.number, one.level, one.cut.level) for one in items if one.level != one.cut.level]
    assert wider == [(3, "token", "block"), (3, "line", "block")]


@pytest.mark.usefixtures("_short")
def test_command_says_where_scores_are_incomplete(run):
    coarse = run("neurons", "short.jsonl", "demo-gpt2", "--steps", 1)
    assert "2 of 2 completions: scores of a layer miss their sum (column residual) by more than 5%" in coarse.stderr
    assert run("neurons", "short.jsonl", "demo-gpt2", "--steps", 1, "--quiet").stderr == ""
    fine = run("neurons", "short.jsonl", MODEL, "--steps", 60)
    assert "miss their sum" not in fine.stderr


@pytest.mark.usefixtures("_short")
def test_command_plot(done):
    done(
        "neurons",
        "short.jsonl",
        MODEL,
        "--mask-level",
        "token",
        "--mask-level",
        "line",
        "--plot",
        "n.png",
        "--steps",
        2,
    )
    assert Path("n.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("_short")
def test_check(done):
    done("neurons", "four.jsonl", MODEL, "-o", "neurons.tsv", "--dtype", "float64")
    text = done("neurons", "check", "four.jsonl", MODEL, "neurons.tsv", "--draws", 4, "--seed", 1, "--dtype", "float64")
    rows = table(text)
    assert len(rows) == 4 * 2 * 3
    again = done(
        "neurons", "check", "four.jsonl", MODEL, "neurons.tsv", "--draws", 4, "--seed", 1, "--dtype", "float64"
    )
    assert again == text
    other = done(
        "neurons", "check", "four.jsonl", MODEL, "neurons.tsv", "--draws", 4, "--seed", 2, "--dtype", "float64"
    )
    assert other != text
    assert {row["cases"] for row in rows if row["group"] == "random"} == {"4"}
    assert {row["cases"] for row in rows if row["group"] == "unrelated"} == {"3"}
    sizes = {(row["fact"], row["neurons"]) for row in rows}
    assert len(sizes) == 4
    few = table(done("neurons", "check", "four.jsonl", MODEL, "neurons.tsv", "--factor", 1, "--dtype", "float64"))
    assert {float(row["change"]) for row in few} == {0.0}


@pytest.mark.usefixtures("_short")
def test_check_on_another_file(done):
    done("neurons", "short.jsonl", MODEL, "-o", "neurons.csv", "--format", "csv", "--mask-level", "line", "--steps", 3)
    rows = table(
        done("neurons", "check", "short.jsonl", MODEL, "neurons.csv", "--unrelated", "four.jsonl", "--draws", 2)
    )
    unrelated = [row for row in rows if row["group"] == "unrelated"]
    assert {(row["cases"], row["item"], row["level"]) for row in unrelated} == {("4", "", "line")}


@pytest.mark.usefixtures("_short")
def test_check_takes_what_was_found(done):
    """A table of every neuron is checked as that of the found ones is, in every format."""
    plain = ("neurons", "four.jsonl", MODEL, "--steps", 3)
    check = ("neurons", "check", "four.jsonl", MODEL)
    done(*plain, "-o", "found.tsv")
    expected = done(*check, "found.tsv", "--draws", 2)
    for name in ("all.tsv", "all.csv", "all.jsonl", "all.parquet"):
        done(*plain, "--all", "-o", name)
        assert done(*check, name, "--draws", 2) == expected


@pytest.mark.usefixtures("_short")
def test_check_refuses_what_was_made_otherwise(run, done):
    done("neurons", "four.jsonl", MODEL, "-o", "neurons.tsv", "--steps", 2)
    check = ("neurons", "check", "four.jsonl")
    assert "model.weights: " in (line := refused(run(*check, "demo-opt", "neurons.tsv")))
    assert "neurons.tsv was made otherwise" in line
    assert "options.bos: true in the table, false expected" in refused(run(*check, MODEL, "neurons.tsv", "--no-bos"))
    assert 'options.neurons: "activation" in the table, "pre-activation" expected' in refused(
        run(*check, MODEL, "neurons.tsv", "--neurons", "pre-activation")
    )
    assert 'model.dtype: "float32" in the table, "float64" expected' in refused(
        run(*check, MODEL, "neurons.tsv", "--dtype", "float64")
    )
    Path("other.jsonl").write_text("".join(FACTS.read_text("utf-8").splitlines(keepends=True)[2:6]))
    assert "neurons.tsv has neurons for other items (four.jsonl), whose facts go by their numbers" in refused(
        run("neurons", "check", "other.jsonl", MODEL, "neurons.tsv")
    )
    done("edges", ROOT / "data" / "pronouns.json", "demo-gpt2", "--mask-value", 0, "-o", "edges.tsv")
    assert 'edges.tsv was made otherwise (command: "edges score" in the table, "neurons find" expected' in refused(
        run(*check, MODEL, "edges.tsv")
    )
    for factor, message in (("nan", "finite number, not nan"), ("inf", "not inf")):
        assert f"--factor must be a {'finite number, ' if factor == 'inf' else ''}{message}" in refused(
            run(*check, MODEL, "neurons.tsv", "--factor", factor)
        )
    assert "--factor 2.0 is given twice" in refused(run(*check, MODEL, "neurons.tsv", "--factor", 2, "--factor", 2))


@pytest.mark.usefixtures("_short")
def test_check_of_a_table_that_says_nothing(run, done):
    """A table by hand is taken, with a warning."""
    Path("mine.tsv").write_text("fact\tlevel\tlayer\tneuron\n0\t\t1\t2\n")
    result = run("neurons", "check", "four.jsonl", MODEL, "mine.tsv", "--draws", 2)
    assert result.exit_code == 0, result.stderr
    done("neurons", "four.jsonl", MODEL, "--all", "--threshold", 1, "--share", 1, "-o", "none.tsv", "--steps", 2)
    Path("none.tsv").write_text(Path("none.tsv").read_text("utf-8").replace("True", "False"), "utf-8")
    assert "none.tsv has changed since" in refused(run("neurons", "check", "four.jsonl", MODEL, "none.tsv"))
    Path("none.tsv.meta.json").unlink()
    assert "none.tsv has no neuron that was found" in refused(run("neurons", "check", "four.jsonl", MODEL, "none.tsv"))


def test_cuts_that_are_wider_than_asked(run):
    """The column and the line say so."""
    result = run("neurons", EDITS, "demo-gpt2", "--steps", 1, "--mask-level", "token", "--mask-level", "line")
    assert result.exit_code == 0, result.stderr
    cuts = {(r["item"], r["level"], r["cut"]) for r in table(result.stdout)}
    assert {one for one in cuts if one[1] != one[2]} == {("3", "token", "block"), ("3", "line", "block")}
    assert "2 of 8 edits are cut wider than asked, where nothing new would be left" in result.stderr
    assert "(token as block: 1, line as block: 1): see column cut" in result.stderr
    assert wider_cuts([]) is None


def test_masks_of_items(done, run):
    """An edit's own mask: a level, or the part of the text after the edit."""
    pre, post = "def f(a):\n    return a\n", "def f(a):\n    return a + 1\n"
    masks = [None, "line", "block", "a + 1", "return a + 1"]
    items = [{"pre_text": pre, "post_text": post, **({} if mask is None else {"mask": mask})} for mask in masks]
    Path("items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    done("neurons", "items.jsonl", "demo-gpt2", "--masked", "masked.jsonl", "--steps", 1, "--counts")
    lines = [json.loads(line) for line in Path("masked.jsonl").read_text("utf-8").splitlines()]
    assert [(line["level"], line["cut"], line["new"], line["old"]) for line in lines] == [
        ("token", "token", " + 1", ""),
        ("line", "line", "    return a + 1\n", "    return a\n"),
        ("block", "block", post, pre),
        ("mask", "mask", "a + 1", "a"),
        ("mask", "mask", "return a + 1", "return a"),
    ]
    for mask, message in (
        ("f(b)", "line 1: mask 'f(b)' must be in post_text exactly once, it is there 0 times"),
        ("a", "mask 'a' must be in post_text exactly once, it is there 2 times"),
        ("def f", "mask 'def f' must have all that was changed in it"),
    ):
        Path("bad.jsonl").write_text(json.dumps({"pre_text": pre, "post_text": post, "mask": mask}))
        assert message in refused(run("neurons", "bad.jsonl", "demo-gpt2"))
    Path("bad.jsonl").write_text(json.dumps({"prompt": "a", "target": "b", "mask": "b"}))
    assert "line 1 has a mask, which is of edits (pre_text, post_text): leave it out" in refused(
        run("neurons", "bad.jsonl", "demo-gpt2")
    )


def test_check_of_masks(done):
    edit = {"pre_text": "def f(a):\n    return a\n", "post_text": "def f(a):\n    return a + 1\n", "mask": "a + 1"}
    Path("items.jsonl").write_text(json.dumps(edit))
    done("neurons", "items.jsonl", "demo-gpt2", "--steps", 2, "-o", "neurons.tsv")
    rows = table(done("neurons", "check", "items.jsonl", "demo-gpt2", "neurons.tsv", "--draws", 2))
    assert {row["level"] for row in rows} == {"mask"}


def test_convention_of_knowledge_neurons(done):
    """Explicit options override it."""
    items = [{"prompt": "Dr. Watson was the friend of Sherlock", "target": "Holmes"}]
    Path("items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    named = done("neurons", "items.jsonl", "demo-gpt2", "--convention", "knowledge-neurons", "--steps", 4)
    options = ("--neurons", "pre-activation", "--tokens", "separately", "--threshold", 0.3)
    spelled = ("neurons", "items.jsonl", "demo-gpt2", *options, "--quadrature", "linspace", "--steps", 4)
    assert named == done(*spelled, "--function", "prob")
    overridden = ("--convention", "knowledge-neurons", "--steps", 4, "--function", "logit")
    assert done(*spelled, "--function", "logit") == done("neurons", "items.jsonl", "demo-gpt2", *overridden)
    done("neurons", "items.jsonl", "demo-gpt2", *overridden, "-o", "neurons.tsv")
    made = json.loads(Path("neurons.tsv.meta.json").read_text("utf-8"))["made"]["options"]
    assert (made["neurons"], made["function"]) == ("pre-activation", "logit")


def test_what_is_refused_is_refused_before_a_header_is_out(run, done):
    small = ("--memory", "1KiB")
    assert "more than the memory of 1 KiB" in refused(run("neurons", FACTS, MODEL, *small))
    done("neurons", FACTS, MODEL, "-o", "n.tsv", "--steps", 1)
    assert "more than the memory of 1 KiB" in refused(run("neurons", "check", FACTS, MODEL, "n.tsv", *small))


def test_command_leaves_nothing_behind(run, monkeypatch):
    def fail(*_):
        raise ValueError("no picture")

    monkeypatch.setattr("decomp.report.plots.layer_histogram", fail)
    options = ("-o", "n.tsv", "--masked", "m.jsonl", "--plot", "n.png", "--steps", 1)
    assert "no picture" in refused(run("neurons", FACTS, MODEL, *options))
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"subject": " ", "relation": "{} a", "target_true": "c", "target_false": "d"},
            "line 1: subject is blank: give some text",
        ),
        ({"pre_text": "a b", "post_text": "a b"}, "line 1: pre_text and post_text are the same"),
        ({"pre_text": "a", "post_text": ""}, "line 1: post_text is empty"),
        ({"pre_text": 1, "post_text": ""}, "line 1: pre_text must be text, it is 1"),
        ({"prompt": "a", "target": ""}, "line 1: target is blank: give some text"),
        ({"prompt": "a", "targets": "b"}, "line 1 must have pre_text, post_text; or .*: it has prompt, targets"),
        ({"prompt": "a " * 200, "target": "b"}, "line 1 has 201 tokens, the model has 64 positions: shorten it"),
        ({"subject": "a", "relation": "b", "target_true": "c", "target_false": "d"}, "with one {}"),
    ],
)
def test_bad_items(run, item, message):
    Path("items.jsonl").write_text(json.dumps(item))
    assert re.search(message, refused(run("neurons", "items.jsonl", MODEL)))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"prompt": "a", "target": "b"}, "line 1 has no foil, which --contrast needs"),
        ({"prompt": "a", "target": "b", "foil": "b"}, "line 1: target and foil are the same tokens"),
        ({"prompt": "a", "target": "b", "foil": " "}, "line 1: foil is blank: give some text"),
    ],
)
def test_bad_contrasts(run, item, message):
    Path("items.jsonl").write_text(json.dumps(item))
    assert message in refused(run("neurons", "items.jsonl", MODEL, "--contrast"))


def test_nothing_before_the_target(run):
    Path("items.jsonl").write_text(json.dumps({"prompt": "", "target": "b"}))
    assert "line 1: nothing precedes what is predicted" in refused(run("neurons", "items.jsonl", MODEL, "--no-bos"))


def test_bad_checks(run, done, tmp_path):
    path = tmp_path / "neurons.tsv"
    for row, message in (
        ("0\t\t9\t0", "line 2: layer must be from 0 to 2 in this model, it is '9'"),
        ("0\t\t0\tx", "neuron must be from 0 to"),
        ("magic\t\t0\t0", "has neurons of fact 'magic', the items have none such"),
        ("0\tline\t0\t0", "has neurons of fact '0' at level line, the items have none such"),
    ):
        path.write_text(f"fact\tlevel\tlayer\tneuron\n{row}\n")
        assert message in refused(run("neurons", "check", FACTS, MODEL, path))
    path.write_text("layer\tneuron\n1\t2\n")
    assert "lacks fact, level" in refused(run("neurons", "check", FACTS, MODEL, path))


def test_neurons_table_of_any_format(tmp_path):
    path = tmp_path / "neurons.jsonl"
    path.write_text('{"fact": "a", "level": "", "layer": 1, "neuron": 3}\n')
    (key,) = sets = read_neurons(path, 2, 5)
    assert key == ("a", "")
    assert sets[key].nonzero().tolist() == [[1, 3]]


def test_help_of_the_group(done):
    assert "find" in done("neurons", "--help")
    assert "--mask-level" in done("neurons", "find", "--help")
    assert "--unrelated" in done("neurons", "check", "-h")
