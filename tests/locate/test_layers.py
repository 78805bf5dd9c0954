"""Layer scores against separate hooks, and direct shares against their definition."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch
from torch.testing import assert_close

import decomp
from decomp.locate.facts import Fact, Object
from decomp.locate.layers.request import COMPONENTS, LayerRequest
from decomp.locate.layers.rows import LayerRow, Means
from decomp.locate.layers.scoring import bytes_per_token, direct_shares, gradient_x_activation, summed_shares
from decomp.locate.layers.table import open_facts, score_layers
from tests.commands import MODEL, refused
from tests.conftest import ROOT
from tests.variants import VARIANTS, make_pair, random_ids

FACTS = str(ROOT / "data" / "facts.jsonl")
SOME = ["opt", "opt-post-norm", "opt-gelu", "gpt2", "gpt2-relu"]


def make_fact(length, seed):
    objects = [Object((first + seed, 7), ("a", "b")) for first in (5, 40)]
    return Fact(random_ids(length, seed), ("t",) * length, ("further",) * length, *objects, True, f"fact {seed}")


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
    for fact, scores in zip(FOUR, gradient_x_activation(model, FOUR, LayerRequest(components=COMPONENTS)), strict=True):
        for component in COMPONENTS:
            expected = torch.stack([separately(plain, fact, component, layer) for layer in range(2)])
            assert_close(scores.components[component], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", SOME)
def test_batched_is_alone(variant):
    _, model = make_pair(variant)
    request = LayerRequest(components=COMPONENTS, function="log2_prob")
    alone = [next(gradient_x_activation(model, [fact], request)) for fact in FOUR]
    one = 12 * bytes_per_token(model, 12)
    for memory in (2**30, one, 3 * one):
        together = gradient_x_activation(model, FOUR, replace(request, memory=memory))
        for scores, expected in zip(together, alone, strict=True):
            assert_close(scores.value, expected.value, rtol=0, atol=1e-12)
            assert_close(scores.components, expected.components, rtol=0, atol=1e-12)


def test_too_little_memory():
    _, model = make_pair("opt")
    for measure in ("gradient_x_activation", "direct"):
        with pytest.raises(ValueError, match=r"a fact of 9 tokens needs about .* more than the memory of 1 KiB"):
            list(score_layers(model, FOUR, LayerRequest(measures=(measure,), memory=1024)))


def given(fact, side, count):
    """The prompt with the first tokens of an object."""
    return torch.cat([fact.ids, fact.ids.new_tensor(getattr(fact, side).ids[:count])])


def summed_value(plain, fact, function):
    """Σ_j f(y_j | prompt, y_<j) of the true object, less that of the false one."""
    total = 0
    for sign, side in ((1, "true"), (-1, "false")):
        for j, token in enumerate(getattr(fact, side).ids):
            logits = plain(given(fact, side, j)[None]).logits[0, -1]
            total += sign * values_of(logits, function)[token]
    return total


def values_of(logits, function):
    """What counts of every token."""
    return {
        "contrast_logit": logits,
        "contrast_log2_prob": logits.log_softmax(0) / math.log(2),
        "contrast_prob": logits.softmax(0),
    }[function]


def products_apart(plain, fact, component, layer, function):
    """Gradient ⊙ activation of one layer at every token: the prompt's outputs replaced in all passes by one leaf, what
    follows by leaves of its own."""
    leaves, last = {}, {}

    def replace_output(module, args, output):
        first = output[0] if isinstance(output, tuple) else output
        rows = first.view(-1, first.shape[-1])
        parts = []
        for place, row in enumerate(rows):
            key = (place, "" if place < len(fact.ids) else last["side"])
            if key not in leaves:
                leaves[key] = row.detach().clone().requires_grad_()
            parts.append(leaves[key])
        new = torch.stack(parts).view(first.shape)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = layers_of(plain)[layer][component].register_forward_hook(replace_output)
    total = 0
    for sign, side in ((1, "true"), (-1, "false")):
        last["side"] = side
        for j, token in enumerate(getattr(fact, side).ids):
            logits = plain(given(fact, side, j)[None]).logits[0, -1]
            total = total + sign * values_of(logits, function)[token]
    handle.remove()
    keys = sorted(leaves, key=lambda key: (("", "true", "false").index(key[1]), key[0]))
    return torch.stack(
        [
            leaves[k].detach() * g
            for k, g in zip(keys, torch.autograd.grad(total, [leaves[k] for k in keys]), strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("variant", "function"),
    [("opt", "contrast_logit"), ("opt-post-norm", "contrast_log2_prob"), ("gpt2", "contrast_prob")],
)
def test_objects_of_several_tokens_are_added_up(variant, function):
    plain, model = make_pair(variant)
    plain.set_attn_implementation("sdpa")
    facts = FOUR[:2]
    sums = LayerRequest(components=COMPONENTS, function=function, multi_token="sum")
    reductions = {"sum": lambda p: p.sum(-1), "absolute": lambda p: p.sum(-1).abs(), "norm": lambda p: p.norm(dim=-1)}
    for reduce, apply in reductions.items():
        for fact, scores in zip(facts, gradient_x_activation(model, facts, replace(sums, reduce=reduce)), strict=True):
            assert_close(scores.value, summed_value(plain, fact, function).detach(), rtol=0, atol=1e-10)
            for component, score in scores.components.items():
                expected = apply(products_apart(plain, fact, component, 1, function))
                assert_close(score[1], expected, rtol=0, atol=1e-10)
                assert score.shape[1] == len(fact.ids) + 2


def test_norms_of_gradient_x_activation():
    plain, model = make_pair("gpt2")
    plain.set_attn_implementation("sdpa")
    one = replace(FOUR[1], true=Object((5,), ("a",)), false=Object((40,), ("b",)))
    products = products_apart(plain, one, "mlp", 1, "contrast_logit")
    for norm, expected in (("l1", products.abs().sum(-1)), ("l2", products.square().sum(-1).sqrt())):
        (scores,) = gradient_x_activation(model, [one], LayerRequest(reduce="norm", norm=norm))
        assert_close(scores.components["mlp"][1], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", ["opt-post-norm", "gpt2"])
def test_direct_shares_of_several_tokens_add_up(variant):
    plain, model = make_pair(variant)
    for fact in FOUR:
        shares = summed_shares(model, fact, LayerRequest(measures=("direct",), multi_token="sum"))
        total = shares.embedding + shares.bias + sum(part.sum() for part in shares.components.values())
        expected = summed_value(plain, fact, "contrast_logit").detach()
        assert_close(shares.value, expected, rtol=0, atol=1e-10)
        assert_close(total, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": ("direct", "direct")}, "--measure direct is given twice"),
        ({"components": ("mlp", "mlp")}, "--component mlp is given twice"),
        ({"components": ("heads",)}, "unknown component 'heads': choose one of mlp, attention, residual"),
        ({"reduce": "mean"}, "unknown reduction 'mean': choose one of sum, absolute, norm"),
        ({"measures": ("direct",), "reduce": "norm"}, "direct shares are numbers already, norm is of gradient_x"),
        ({"measures": ("direct",), "function": "contrast_log2_prob", "multi_token": "sum"}, "log2_prob is not: choose"),
    ],
)
def test_bad_requests(options, message):
    with pytest.raises(ValueError, match=message):
        LayerRequest(**options).check()


def test_scores_that_are_no_numbers():
    _, model = make_pair("opt")
    with torch.no_grad():
        model.get_output_embeddings().weight[5] = math.inf
    with pytest.raises(ValueError, match="fact 0: mlp of layer 0, token 0, is nan, no finite number"):
        list(score_layers(model, FOUR))


def test_one_forward_and_one_backward_for_all_layers(monkeypatch):
    # In float64 torch calls what stands for torch.autograd.grad once more, on behalf of the mode of its precision.
    _, model = make_pair("gpt2", torch.float32)
    calls = []
    model.base_model.register_forward_hook(lambda *_: calls.append("forward"))
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **more: calls.append("backward") or grad(*args, **more))
    assert len(list(gradient_x_activation(model, FOUR, LayerRequest(components=COMPONENTS)))) == 4
    assert calls == ["forward", "backward"]


def test_the_model_is_left_as_it_was():
    _, model = make_pair("opt")
    model.train()
    frozen = model.get_input_embeddings().weight.requires_grad_(False)
    list(gradient_x_activation(model, FOUR, LayerRequest(components=COMPONENTS)))
    direct_shares(model, FOUR[0], "contrast_logit")
    assert model.training
    assert [p for p in model.parameters() if not p.requires_grad] == [frozen]
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("variant", "function"),
    [*((variant, "contrast_logit") for variant in VARIANTS), ("opt", "logit"), ("gpt2", "contrast_log2_prob")],
)
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


def test_means_of_tokens_then_items():
    means = Means()
    means.add([row(0, "further", 1.0), row(0, "further", 3.0)])
    means.add([row(1, "further", 10.0), row(1, "last", 5.0, layer=1)])
    further, last = means.rows(0.95, seed=3)
    assert further[:6] == ("m", "mlp", 0, "further", 2, 6.0)
    assert further[6:] == (2.0, 10.0, 3)
    assert last == ("m", "mlp", 1, "last", 1, 5.0, 5.0, 5.0, 3)
    assert [list(each) for each in means.each.values()] == [[2.0, 10.0], [5.0]]


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


def test_command_several_tokens(done):
    """Words of the false object are given to the model, too, at the same positions as those of the true one."""
    item = {"relation": "{} lived in the", "subject": "Sherlock", "target_true": "Baker Street", "target_false": "Hall"}
    Path("facts.jsonl").write_text(json.dumps(item))
    rows = table(done("layers", "facts.jsonl", "demo-gpt2", "--multi-token", "sum", "--reduce", "norm"))
    tokens = [(r["position"], r["token"], r["role"]) for r in rows if r["layer"] == "0"]
    after = str(sum(not role.endswith("object") for *_, role in tokens) - 1)
    assert tokens[-3:] == [
        (after, "ĠB", "true_object"),
        (str(int(after) + 1), "aker", "true_object"),
        (after, "ĠH", "false_object"),
    ]
    assert all(float(r["score"]) >= 0 for r in rows)
    first = table(done("layers", "facts.jsonl", "demo-gpt2"))
    assert {r["role"] for r in first} == {role for *_, role in tokens} - {"true_object", "false_object"}


def test_command_counterfact_as_it_is(done):
    """The nested form of Meng et al. 2022; what it asks is what the flat form asks."""
    nested = {"prompt": "{} lived in", "subject": "Sherlock", "relation_id": "P1"}
    objects = {"target_true": {"str": "Baker", "id": "Q1"}, "target_new": {"str": "York", "id": "Q2"}}
    items = [{"case_id": 0, "requested_rewrite": nested | objects, "paraphrase_prompts": ["a"]}]
    flat = {"relation": "{} lived in", "subject": "Sherlock", "target_true": "Baker", "target_false": "York"}
    Path("counterfact.json").write_text(json.dumps(items))
    Path("facts.jsonl").write_text(json.dumps(flat))
    assert done("layers", "counterfact.json", MODEL) == done("layers", "facts.jsonl", MODEL)


def test_facts_at_hand():
    """From Python, without files."""
    model, tokenizer = decomp.load_model("demo-opt")
    items = [{"relation": "{} lived in", "subject": "Sherlock", "target_true": "Baker", "target_false": "York"}]
    facts = open_facts(model, tokenizer, items)
    (rows,) = score_layers(model, facts, LayerRequest(measures=("direct",)))
    assert sum(r.score for r in rows) == pytest.approx(rows[0].value, abs=1e-4)
    with pytest.raises(ValueError, match="item 0 lacks subject: it has relation, target_true, target_false"):
        open_facts(model, tokenizer, [{k: v for k, v in items[0].items() if k != "subject"}])
    with pytest.raises(ValueError, match="there are no items"):
        open_facts(model, tokenizer, [])


def test_command_parquet(done):
    done("layers", FACTS, MODEL, "-o", "layers.parquet")
    rows = parquet.read_table("layers.parquet").to_pylist()
    assert [{k: str(v) for k, v in r.items()} for r in rows] == table(done("layers", FACTS, MODEL))


def test_command_leaves_nothing_behind(run, monkeypatch):
    """A picture that can't be made, and a folder that is not there, before anything is written."""
    refused(run("layers", FACTS, MODEL, "-o", "layers.tsv", "--plot", "none/map.png"))
    assert not Path("layers.tsv").exists()
    monkeypatch.setattr("decomp.report.plots.heat_map", lambda *_: (_ for _ in ()).throw(ValueError("no picture")))
    assert run("layers", FACTS, MODEL, "-o", "layers.tsv", "--plot", "map.png").exit_code == 2
    assert not Path("layers.tsv").exists()


def test_what_is_refused_is_refused_before_a_header_is_out(run):
    for measure in ("gradient_x_activation", "direct"):
        for memory in ("1KiB", "500KiB"):  # too little for all, and for one of them
            options = ("--measure", measure, "--memory", memory)
            assert "more than the memory of " in refused(run("layers", FACTS, MODEL, *options))


def test_command_refuses(run, monkeypatch):
    assert "unknown function 'magic'" in refused(run("layers", FACTS, MODEL, "--function", "magic"))
    assert "linear in the logits, prob is not" in refused(
        run("layers", FACTS, MODEL, "--measure", "direct", "--function", "prob")
    )
    assert "map.gif must be a picture, .png, .svg or .pdf" in refused(run("layers", FACTS, MODEL, "--plot", "map.gif"))
    assert "can't read nothing.jsonl" in refused(run("layers", "nothing.jsonl", MODEL))
    Path("map.png").write_text("")
    assert "map.png exists: give --overwrite" in refused(run("layers", FACTS, MODEL, "--plot", "map.png"))
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert "pictures need matplotlib: pip install" in refused(run("layers", FACTS, MODEL, "--plot", "new.png"))
