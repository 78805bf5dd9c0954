"""Gradient measures against autograd, captum, and what they must add up to."""

import math

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients
from torch.testing import assert_close

from decomp.measures import SCORES, GradientOptions, Request, Text
from decomp.measures.functions import FUNCTIONS
from decomp.measures.quadrature import RULES, quadrature
from tests.variants import VOCAB, deep, make_pair, random_ids

VARIANTS = ["opt", "opt-post-norm", "opt-pre-norm-projected", "gpt2", "gpt2-relu"]
T = 9


def text_of(length=T, first=0):
    foils = torch.randint(4, VOCAB, (length - 1,), generator=torch.Generator().manual_seed(3))
    return Text(random_ids(length), range(first, length - 1), foils)


def one(name, model, text, function=None, memory=2**30, length=None, **options):
    request = Request(length, memory=memory, function=function, gradients=GradientOptions(**options))
    ((scores,),) = SCORES[name](model, [text], request)
    return scores


def value_at(plain, text, target, function, embedding):
    """The attributed function on a prefix that is given as embeddings."""
    logits = plain(inputs_embeds=embedding[None]).logits[0, -1:]
    foil = text.foils[target : target + 1]
    return FUNCTIONS[function](logits, text.ids[target + 1 : target + 2], foil)[0]


def embeddings_of(plain, ids):
    return plain.get_input_embeddings().weight[ids].detach()


def gradient_at(plain, text, target, function, embedding):
    x = embedding[: target + 1].clone().requires_grad_()
    return torch.autograd.grad(value_at(plain, text, target, function, x), x)[0]


@pytest.mark.parametrize(
    ("variant", "function"),
    [*(("gpt2", function) for function in FUNCTIONS), *((variant, "contrast_log2_prob") for variant in VARIANTS[:3])],
)
def test_gradients_of_every_function(variant, function):
    plain, model = make_pair(variant)
    text = text_of(first=2)
    x = embeddings_of(plain, text.ids)
    kinds = {
        "sum": one("input_x_gradient", model, text, function),
        "norm": one("input_x_gradient", model, text, function, reduce="norm", norm="l1"),
        "l1": one("gradient_norm", model, text, function, norm="l1"),
        "l2": one("gradient_norm", model, text, function),
    }
    for target in text.targets:
        g = gradient_at(plain, text, target, function, x)
        product = g * x[: target + 1]
        expected = {
            "sum": product.sum(-1),
            "norm": product.abs().sum(-1),
            "l1": g.abs().sum(-1),
            "l2": g.square().sum(-1).sqrt(),
        }
        for kind, scores in kinds.items():
            assert_close(scores.scores[target, : target + 1], expected[kind], rtol=1e-10, atol=1e-12)
    for scores in kinds.values():
        assert scores.scores.triu(1).count_nonzero() == 0
        assert scores.scores[:2].count_nonzero() == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_token_and_position(variant):
    """Finite differences in what the first block is given."""
    _, model = make_pair(variant)
    text = text_of()
    scores = one("input_x_gradient", model, text, "logit", positions=True).scores
    state, unembedding = model.record(text.ids).embedding, model.unembedding()

    def logits(scale, source):
        changed = state.clone()
        changed[source] *= scale
        hidden = model.record(text.ids, embedding=changed).hidden[:-1]
        return unembedding.logits(hidden).gather(1, text.ids[1:, None])[:, 0]

    for source in range(T):
        slope = (logits(1 + 1e-5, source) - logits(1 - 1e-5, source)) / 2e-5
        assert_close(scores[:, source], slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "trapezoid"])
@pytest.mark.parametrize("variant", ["opt-post-norm", "gpt2"])
def test_captum_integrated_gradients(variant, rule):
    names = {"gauss-legendre": "gausslegendre", "left": "riemann_left", "right": "riemann_right"}
    plain, model = make_pair(variant, **deep(variant))
    text = text_of()
    scores = one("integrated_gradients", model, text, "log2_prob", quadrature=rule, steps=7).scores
    for target in (0, 3, 7):
        x = embeddings_of(plain, text.ids[: target + 1])[None]
        y = text.ids[target + 1].expand(1)

        def forward(embeddings, y=y):
            logits = plain(inputs_embeds=embeddings).logits[:, -1]
            return FUNCTIONS["log2_prob"](logits, y.expand(len(logits)), None)

        method = names.get(rule, "riemann_middle")
        theirs = IntegratedGradients(forward).attribute(x, torch.zeros_like(x), n_steps=7, method=method)
        assert_close(scores[target, : target + 1], theirs[0].sum(-1), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("variant", ["opt-post-norm", "gpt2"])
def test_captum_input_x_gradient(variant):
    plain, model = make_pair(variant)
    text = text_of()
    scores = one("input_x_gradient", model, text, "logit").scores
    x = embeddings_of(plain, text.ids)[None].requires_grad_()
    for target in (2, 7):
        y = int(text.ids[target + 1])
        method = InputXGradient(lambda e, i=target, y=y: plain(inputs_embeds=e).logits[:, i, y])
        assert_close(scores[target], method.attribute(x)[0].sum(-1).detach(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("baseline", ["zero", "mean", 5])
@pytest.mark.parametrize("variant", ["opt-pre-norm-projected", "gpt2"])
def test_shares_and_residual_sum_to_the_change(variant, baseline, positions):
    plain, model = make_pair(variant)
    text = text_of()
    scores = one("integrated_gradients", model, text, baseline=baseline, positions=positions, steps=4, length=3)
    kept = torch.stack([row[max(0, i - 2) : i + 1].sum() for i, row in enumerate(scores.scores)])
    total = kept + scores.extra["<remainder>"] + scores.extra["<residual>"]
    matrix, project_in = model.token_embeddings()
    vector = {"zero": torch.zeros_like(matrix[0]), "mean": matrix.mean(0), 5: matrix[5]}[baseline]
    if positions:
        state = vector if project_in is None else vector @ project_in.weight
        hidden = model.record(text.ids, embedding=state.expand(T, -1).contiguous()).hidden[:-1]
        at_baseline = FUNCTIONS["log2_prob"](model.unembedding().logits(hidden), text.ids[1:], None)
    else:
        ends = [value_at(plain, text, i, "log2_prob", vector.expand(i + 1, -1)) for i in text.targets]
        at_baseline = torch.stack(ends).detach()
    assert_close(total, scores.log2_prob - at_baseline, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("rule", "order"), [("left", 1), ("right", 1), ("midpoint", 2), ("trapezoid", 2)])
def test_residual_shrinks_at_the_order_of_the_rule(rule, order):
    _, model = make_pair("gpt2-tanh", n_layer=1)

    def residual(steps):
        scores = one("integrated_gradients", model, text_of(3), "logit", quadrature=rule, steps=steps, baseline=7)
        return scores.extra["<residual>"][1].abs().item()

    more = 1 if rule == "trapezoid" else 0
    assert abs(math.log2(residual(16 + more) / residual(32 + more)) - order) < 0.1


def test_residual_of_gauss_legendre_vanishes():
    _, model = make_pair("gpt2-tanh", n_layer=1)
    options = {"function": "logit", "baseline": 7}
    few, many = (one("integrated_gradients", model, text_of(3), steps=n, **options) for n in (6, 24))
    assert few.extra["<residual>"].norm() > 1e3 * many.extra["<residual>"].norm()


@pytest.mark.parametrize("rule", RULES)
def test_quadrature(rule):
    nodes = quadrature(rule, 6)
    assert [node for node, _ in nodes] == sorted(node for node, _ in nodes)
    assert nodes[0][0] >= 0
    assert nodes[-1][0] <= 1
    assert math.isclose(sum(weight for _, weight in nodes), 1)
    linear = sum(weight * node for node, weight in nodes)
    assert math.isclose(linear, {"left": 5 / 12, "right": 7 / 12}.get(rule, 0.5))
    if rule == "gauss-legendre":
        assert math.isclose(sum(weight * node**11 for node, weight in nodes), 1 / 12)


@pytest.mark.parametrize(
    ("rule", "steps", "message"),
    [
        ("simpson", 5, "unknown quadrature 'simpson': choose one of gauss-legendre, left"),
        ("left", 0, "a path needs 1 step or more, not 0"),
        ("trapezoid", 1, "both ends among its nodes: use 2 steps"),
    ],
)
def test_bad_quadrature(rule, steps, message):
    with pytest.raises(ValueError, match=message):
        quadrature(rule, steps)


@pytest.mark.parametrize("name", ["gradient_norm", "input_x_gradient", "integrated_gradients", "discretized_ig"])
@pytest.mark.parametrize("reduce", ["sum", "norm"])
def test_memory_batches_and_targets_change_nothing(name, reduce):
    _, model = make_pair("opt-post-norm")
    options = {"reduce": reduce, "steps": 3, "neighbors": 4}
    texts = [text_of(), text_of(4), text_of(6, first=3)]
    request = Request(gradients=GradientOptions(**options))
    together = [scores for (scores,) in SCORES[name](model, texts, request)]
    for text, scores in zip(texts, together, strict=True):
        tight = one(name, model, text, memory=250_000, **options)
        assert_close(tight.scores, scores.scores, rtol=1e-10, atol=1e-12)
        assert scores.targets == text.targets
        for row in set(range(len(scores.scores))) - set(text.targets):
            assert scores.scores[row].count_nonzero() == 0
    whole, part = one(name, model, text_of(6), **options), together[2]
    assert_close(part.scores[3:], whole.scores[3:], rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="allow more memory"):
        one(name, model, texts[0], memory=1000, **options)


def test_norm_of_integrated_gradients():
    plain, model = make_pair("gpt2")
    text = text_of()
    scores = one("integrated_gradients", model, text, "logit", reduce="norm", steps=3)
    assert scores.extra == {}
    x, target = embeddings_of(plain, text.ids), 6
    integral = sum(w * gradient_at(plain, text, target, "logit", a * x) for a, w in quadrature("gauss-legendre", 3))
    expected = (integral * x[: target + 1]).norm(dim=-1)
    assert_close(scores.scores[target, : target + 1], expected, rtol=1e-10, atol=1e-12)


def test_a_large_residual_is_warned_of(caplog):
    _, model = make_pair("gpt2")
    one("integrated_gradients", model, text_of(4), "logit", steps=1)
    assert "integrated_gradients: the sources' shares miss " in caplog.text
    caplog.clear()
    one("integrated_gradients", model, text_of(4), "logit", steps=32)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("variant", "positions", "baseline"),
    [("gpt2", False, "zero"), ("gpt2", True, "mean"), ("gpt_neox", False, "mean"), ("llama", False, "mean")],
)
def test_paths_from_the_default_baseline_converge(variant, positions, baseline):
    """With RMSNorm and LayerNorm alike: without positions the zero state is where a norm leaps."""
    _, model = make_pair(variant)

    def scored(name, steps):
        options = {"baseline": name, "positions": positions, "steps": steps}
        return one("integrated_gradients", model, text_of(4), length=3, **options)

    def residual(name):
        return scored(name, 24).extra["<residual>"].abs().max().item()

    assert_close(scored("auto", 2).scores, scored(baseline, 2).scores, rtol=0, atol=0)
    reached = residual(baseline)
    assert reached < 2e-3
    if baseline != "zero":
        assert residual("zero") > 30 * reached


def test_bad_baseline():
    _, model = make_pair("gpt2")
    with pytest.raises(ValueError, match="the baseline must be auto, zero, mean, or a token id below 61, not 'pad'"):
        one("integrated_gradients", model, text_of(), baseline="pad")
    with pytest.raises(ValueError, match="token id below 61, not 61"):
        one("integrated_gradients", model, text_of(), baseline=VOCAB)
