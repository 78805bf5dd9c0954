"""Edge scores against a slow masked forward pass: autograd of every mask, finite differences, completeness."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from decomp.core.network import Norm
from decomp.locate.conventions import EDGES
from decomp.locate.edges.batches import bytes_of_prompt
from decomp.locate.edges.checking import check_edges, default_counts, rankings
from decomp.locate.edges.circuits import CIRCUITS, find_circuit
from decomp.locate.edges.graph import graph_of, streams
from decomp.locate.edges.passes import EdgeMasks, UniformMask, through_norm
from decomp.locate.edges.prompts import PromptPair
from decomp.locate.edges.request import Behaviour, EdgeRequest
from decomp.locate.edges.scoring import ranked, score_edges
from decomp.measures.conventions import find_convention
from tests.edge_reference import EdgeForward
from tests.variants import VARIANTS, make_pair, random_ids

LENGTH = 5


def small_pair(variant, **more):
    layers, heads = (
        ("n_layer", "n_head") if variant.startswith("gpt2") else ("num_hidden_layers", "num_attention_heads")
    )
    return make_pair(variant, **{layers: 2, heads: 2, **more})


def make_prompts(count=2, length=LENGTH):
    return [
        PromptPair(
            random_ids(length, 10 + i), random_ids(length, 20 + i), torch.tensor([5 + i, 9]), torch.tensor([30 - i])
        )
        for i in range(count)
    ]


def value_of(logits, prompt, grad_function="logit", answer_function="avg_diff", normaliser=None, clean=None):
    """L of one prompt, from its definition."""
    if answer_function == "kl":
        p = clean.softmax(0)
        return (p * (p / logits.softmax(0)).log2()).sum()
    log_total = logits.logsumexp(0) if normaliser is None else normaliser
    values = {
        "logit": logits,
        "prob": logits.softmax(0),
        "logprob": logits.softmax(0).log2(),
        "logprob_nats": logits.softmax(0).log(),
        "logit_exp": (logits - log_total).exp(),
    }[grad_function]
    right = sum(values[a] for a in prompt.answers) / len(prompt.answers)
    if answer_function == "avg_diff":
        return -(right - sum(values[a] for a in prompt.wrong_answers) / len(prompt.wrong_answers))
    if answer_function == "avg_val":
        return -right
    wanted = [1 / len(prompt.answers) if v in prompt.answers.tolist() else 0.0 for v in range(len(values))]
    return sum((value - w) ** 2 for value, w in zip(values, wanted, strict=True)) / len(values)


def edge_names(graph):
    edges = graph.edges().nonzero().tolist()
    return {(graph.sources[u], *graph.destinations[v]): (u, v) for u, v in edges}


def ablated_outputs(plain, prompts, ablation, side="corrupt"):
    """Per prompt the replacement of every source."""
    if ablation.startswith("batch_"):
        batches = [[p for p in prompts if p.batch == one.batch] for one in prompts]
        every = [ablated_outputs(plain, batch, ablation.removeprefix("batch_"), side) for batch in batches]
        return [outputs[batch.index(one)] for one, batch, outputs in zip(prompts, batches, every, strict=True)]
    sides = ("clean", "corrupt") if side == "both" else (side,)
    outputs = [EdgeForward(plain, getattr(prompt, side)).outputs for side in sides for prompt in prompts]
    if ablation == "resample":
        return outputs
    if ablation == "zero":
        return [{name: torch.zeros_like(x) for name, x in one.items()} for one in outputs]
    stacked = {name: torch.stack([one[name] for one in outputs]) for name in outputs[0]}
    if ablation == "mean":
        return [{name: x.mean(0) for name, x in stacked.items()}] * len(prompts)
    return [{name: x.mean((0, 1)).expand(x.shape[1:]) for name, x in stacked.items()}] * len(prompts)


def slow_scores(plain, graph, prompts, masks, ablation="resample", side="corrupt", **functions):
    """Autograd through the slow pass, with respect to the mask of every edge."""
    expected = torch.zeros(len(graph.sources), len(graph.destinations), dtype=torch.float64)
    for prompt, ablated in zip(prompts, ablated_outputs(plain, prompts, ablation, side), strict=True):
        for value in masks:
            mask = {edge: torch.tensor(value, dtype=torch.float64, requires_grad=True) for edge in edge_names(graph)}
            logits = EdgeForward(plain, prompt.clean, mask, lambda u, c, a=ablated: a[u] - c).logits
            fixed, clean = logits.logsumexp(0).detach(), EdgeForward(plain, prompt.clean).logits.detach()
            loss = value_of(logits, prompt, normaliser=fixed, clean=clean, **functions) / len(prompts) / len(masks)
            gradients = torch.autograd.grad(loss, list(mask.values()))
            for (u, v), gradient in zip(edge_names(graph).values(), gradients, strict=True):
                expected[u, v] += gradient
    return expected


def close(got, expected):
    assert expected.abs().max() > 1e-3
    assert_close(got, expected, rtol=0, atol=1e-10 * max(1.0, expected.abs().max().item()))


@pytest.mark.parametrize("variant", VARIANTS)
def test_mask_gradient_is_autograd_of_every_mask(variant):
    plain, decomposed = small_pair(variant)
    prompts = make_prompts()
    result = score_edges(decomposed, prompts, EdgeRequest(mask_value=0.3))
    close(result.scores, slow_scores(plain, result.graph, prompts, [0.3]))


@pytest.mark.parametrize(("variant", "mask"), [("gpt2", 0.3), ("opt", 0.0), ("opt-post-norm", 0.6)])
def test_every_edge_is_a_finite_difference_of_its_own_mask(variant, mask):
    plain, decomposed = small_pair(variant)
    (prompt,) = prompts = make_prompts(1)
    result = score_edges(decomposed, prompts, EdgeRequest(mask_value=mask, grad_function="logprob"))
    (ablated,) = ablated_outputs(plain, prompts, "resample")
    names, step = edge_names(result.graph), 1e-4
    assert len(names) == result.graph.edges().sum() > 20

    @torch.no_grad()
    def loss(edge, value):
        masks = {**dict.fromkeys(names, mask), edge: value}
        logits = EdgeForward(plain, prompt.clean, masks, lambda u, c: ablated[u] - c).logits
        return value_of(logits, prompt, "logprob")

    differences = [(loss(edge, mask + step) - loss(edge, mask - step)) / (2 * step) for edge in names]
    scores = torch.stack([result.scores[u, v] for u, v in names.values()])
    scale = scores.abs().max().item()
    assert scale > 1e-3
    assert_close(scores, torch.stack(differences), rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("variant", "ablation", "side"),
    [
        *itertools.product(
            ["gpt2"], ["zero", "mean", "token_mean", "batch_mean", "batch_token_mean"], ["clean", "corrupt"]
        ),
        *itertools.product(["gpt2"], ["mean", "token_mean", "batch_token_mean"], ["both"]),
        *(("opt-post-norm", *one) for one in [("zero", "clean"), ("mean", "both"), ("batch_token_mean", "corrupt")]),
    ],
)
def test_ablations(variant, ablation, side):
    plain, decomposed = small_pair(variant)
    prompts = [replace(prompt, batch=batch) for prompt, batch in zip(make_prompts(3), "aba", strict=True)]
    result = score_edges(decomposed, prompts, EdgeRequest(mask_value=0.4, ablation=ablation, side=side))
    close(result.scores, slow_scores(plain, result.graph, prompts, [0.4], ablation, side))


@pytest.mark.parametrize(
    ("grad_function", "answer_function"),
    [
        *itertools.product(["logit", "prob", "logprob", "logit_exp"], ["avg_diff", "avg_val", "mse"]),
        ("logprob_nats", "avg_val"),
        ("logit", "kl"),
    ],
)
def test_functions(grad_function, answer_function):
    plain, decomposed = small_pair("opt")
    prompts = make_prompts()
    functions = {"grad_function": grad_function, "answer_function": answer_function}
    result = score_edges(decomposed, prompts, EdgeRequest(mask_value=0.2, **functions))
    expected = slow_scores(plain, result.graph, prompts, [0.2], **functions)
    assert expected.abs().max() > 1e-6
    assert_close(result.scores, expected, rtol=1e-8, atol=1e-12)
    for loss, side in ((result.clean_loss, "clean"), (result.ablated_loss, "corrupt")):
        clean = [EdgeForward(plain, p.clean).logits for p in prompts]
        each = [
            value_of(EdgeForward(plain, getattr(p, side)).logits, p, clean=c, **functions).item()
            for p, c in zip(prompts, clean, strict=True)
        ]
        assert loss == pytest.approx(sum(each) / 2, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("variant", ["gpt2", "opt-post-norm"])
def test_integrated_samples_are_a_mean_over_masks(variant):
    plain, decomposed = small_pair(variant)
    prompts = make_prompts()
    result = score_edges(decomposed, prompts, EdgeRequest(samples=3))
    close(result.scores, slow_scores(plain, result.graph, prompts, [0, 1 / 3, 2 / 3, 1]))


@pytest.mark.parametrize(
    ("variant", "more"),
    [("gpt2", {}), ("opt-gelu", {}), ("opt-post-norm", {"activation_function": "gelu"})],
)
def test_residual_shrinks_with_samples(variant, more):
    """The mean over n + 1 equal weights is a rule of order 1: twice the samples, half the residual."""
    _, decomposed = small_pair(variant, **more)
    first, second = (score_edges(decomposed, make_prompts(), EdgeRequest(samples=n)).residual() for n in (19, 39))
    assert first / second == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("variant", ["opt", "opt-post-norm"])
def test_residual_shrinks_with_kinks_too(variant):
    _, decomposed = small_pair(variant)
    results = [score_edges(decomposed, make_prompts(), EdgeRequest(samples=n)) for n in (4, 100)]
    first, second = (abs(result.residual()) for result in results)
    assert second < 0.1 * first
    assert second < 0.1 * abs(results[1].ablated_loss - results[1].clean_loss)


def slow_products(plain, graph, prompts, passes):
    """(ablated_u − clean_u) · ∂L/∂in_v, gradients of an own pass each; `passes` of a prompt, its clean and ablated
    outputs are ids, weight, and what takes the place of outputs."""
    expected = torch.zeros(len(graph.sources), len(graph.destinations), dtype=torch.float64)
    for prompt, ablated in zip(prompts, ablated_outputs(plain, prompts, "resample"), strict=True):
        clean = EdgeForward(plain, prompt.clean).outputs
        change = lambda u, _, a=ablated, c=clean: (a[u] - c[u]).detach()  # noqa: E731
        for ids, weight, replaced in passes(prompt, clean, ablated):
            mask = {e: torch.zeros((), dtype=torch.float64, requires_grad=True) for e in edge_names(graph)}
            logits = EdgeForward(plain, ids, mask, change, replaced=replaced).logits
            loss = value_of(logits, prompt) * weight / len(prompts)
            gradients = torch.autograd.grad(loss, list(mask.values()), allow_unused=True)
            for (u, v), gradient in zip(edge_names(graph).values(), gradients, strict=True):
                expected[u, v] += 0 if gradient is None else gradient
    return expected


def between(names, ablated, clean, node):
    """Outputs on the way from the ablated to the clean ones."""
    return {name: (ablated[name] + node * (clean[name] - ablated[name])).detach() for name in names}


@pytest.mark.parametrize(
    ("variant", "quadrature", "nodes"),
    [
        *(("gpt2", *one) for one in [(None, [1, 2, 3]), ("left", [0, 1, 2]), ("riemann", [0, 1, 2, 3])]),
        *((variant, None, [1, 2, 3]) for variant in ("opt-gelu", "opt-post-norm")),
    ],
)
def test_eap_ig_is_the_mean_gradient_over_interpolated_embeddings(variant, quadrature, nodes):
    """Hanna et al. 2024, equation 3, has k = 1 … m; their code k = 0 … m − 1."""
    plain, decomposed = small_pair(variant)
    prompts, request = make_prompts(), EdgeRequest(method="eap_ig", samples=3, quadrature=quadrature)
    result = score_edges(decomposed, prompts, request)
    assert result.residual() is None

    def passes(prompt, clean, ablated):
        return [(prompt.clean, 1 / len(nodes), between(["embedding"], ablated, clean, k / 3)) for k in nodes]

    close(result.scores, slow_products(plain, result.graph, prompts, passes))


@pytest.mark.parametrize("variant", ["gpt2", "opt-gelu", "opt-post-norm"])
def test_eap_ig_on_activations_interpolates_one_stage_at_a_time(variant):
    """EAP-IG's get_scores_ig_activations: gradients averaged over stages and k/m, k = 1 … m."""
    plain, decomposed = small_pair(variant)
    prompts = make_prompts()
    result = score_edges(decomposed, prompts, EdgeRequest(method="eap_ig_activations", samples=2))
    stages = {}
    for name in result.graph.sources:
        stages.setdefault(name.split(".h")[0], []).append(name)
    assert len(stages) == (9 if variant == "opt-post-norm" else 5)

    def passes(prompt, clean, ablated):
        return [
            (prompt.clean, 1 / 2 / len(stages), between(names, ablated, clean, k / 2))
            for names in stages.values()
            for k in (1, 2)
        ]

    close(result.scores, slow_products(plain, result.graph, prompts, passes))


@pytest.mark.parametrize("variant", ["gpt2", "opt-post-norm"])
def test_both_ends_is_the_mean_of_gradients_on_both_prompts(variant):
    """EAP-IG's get_scores_clean_corrupted."""
    plain, decomposed = small_pair(variant)
    prompts = make_prompts()
    result = score_edges(decomposed, prompts, EdgeRequest(method="both_ends"))
    expected = slow_products(
        plain, result.graph, prompts, lambda prompt, *_: [(ids, 1 / 2, {}) for ids in (prompt.clean, prompt.corrupt)]
    )
    close(result.scores, expected)


def test_kl_over_mask_values():
    plain, decomposed = small_pair("gpt2")
    prompts = make_prompts()
    result = score_edges(decomposed, prompts, EdgeRequest(samples=2, answer_function="kl"))
    close(result.scores, slow_scores(plain, result.graph, prompts, [0, 0.5, 1], answer_function="kl"))
    assert result.clean_loss == pytest.approx(0, abs=1e-12)
    assert result.ablated_loss > 0.01


def test_sums_over_prompts_and_samples():
    """auto-circuit calls backward on each batch's mean at each mask value: their gradients add up."""
    _, decomposed = small_pair("gpt2")
    prompts = [replace(prompt, batch=batch) for prompt, batch in zip(make_prompts(3), "aab", strict=True)]
    alone = [score_edges(decomposed, [prompt], EdgeRequest(samples=2)) for prompt in prompts]
    a, b, c = (one.scores for one in alone)
    for options, expected in (
        ({"over_prompts": "sum"}, a + b + c),
        ({"over_prompts": "batch_means"}, (a + b) / 2 + c),
        ({"over_samples": "sum"}, (a + b + c)),
        (EDGES["auto-circuit"].options, 3 * ((a + b) / 2 + c)),
    ):
        result = score_edges(decomposed, prompts, EdgeRequest(**options, samples=2))
        close(result.scores, expected)
        assert result.complete == ("over_samples" not in options)
    summed = score_edges(decomposed, prompts, EdgeRequest(samples=2, over_prompts="sum"))
    assert summed.residual() == pytest.approx(sum(one.residual() for one in alone), rel=1e-9)


def test_conventions_are_requests():
    assert EdgeRequest(**EDGES["eap"].options) == EdgeRequest(mask_value=0.0)
    assert EdgeRequest(**EDGES["eap-ig"].options, samples=4).nodes() == [(k / 4, 1 / 4) for k in range(4)]
    with pytest.raises(ValueError, match="unknown convention 'acdc': choose one of eap, auto-circuit, eap-ig"):
        find_convention("acdc", EDGES)


def test_eap_ig_of_one_sample_is_edge_attribution_patching():
    _, decomposed = small_pair("opt")
    prompts = make_prompts()
    one = score_edges(decomposed, prompts, EdgeRequest(method="eap_ig", samples=1))
    patching = score_edges(decomposed, prompts, EdgeRequest(mask_value=0.0))
    close(one.scores, patching.scores)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_masks_of_zero_and_one(variant):
    _, decomposed = make_pair(variant)
    clean, corrupt = (torch.stack([random_ids(9, seed), random_ids(9, seed + 1)]) for seed in (3, 7))
    graph, patch = graph_of(decomposed), UniformMask(graph_of(decomposed))
    decomposed.patched_logits(corrupt, patch)
    logits = [decomposed(ids, logits_to_keep=1).logits[:, -1] for ids in (clean, corrupt)]
    for mask, expected in zip((0.0, 1.0), logits, strict=True):
        uniform = decomposed.patched_logits(clean, UniformMask(graph, mask, streams(graph, patch.outputs)))
        assert_close(uniform, expected, rtol=0, atol=0 if mask == 0 else 1e-10)
        each = EdgeMasks(graph, mask * graph.edges().double(), patch.outputs)
        assert_close(decomposed.patched_logits(clean, each), expected, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_masks_of_every_edge(variant):
    plain, decomposed = small_pair(variant)
    (prompt,) = prompts = make_prompts(1)
    graph, patch = graph_of(decomposed), UniformMask(graph_of(decomposed))
    decomposed.patched_logits(prompt.corrupt[None], patch)
    masks = torch.rand(len(graph.sources), len(graph.destinations), dtype=torch.float64)
    got = decomposed.patched_logits(prompt.clean[None], EdgeMasks(graph, masks, patch.outputs))
    (ablated,) = ablated_outputs(plain, prompts, "resample")
    by_name = {name: masks[place] for name, place in edge_names(graph).items()}
    expected = EdgeForward(plain, prompt.clean, by_name, lambda u, c: ablated[u] - c).logits
    assert_close(got[0], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", [Norm(torch.rand(7), torch.rand(7), 0.1), Norm(None, None, 0.1, centred=False), None])
def test_gradient_through_a_norm(norm):
    x, gradients = torch.rand(2, 3, 7, dtype=torch.float64), torch.rand(4, 2, 3, 7, dtype=torch.float64)

    def apply(x):
        return x if norm is None else norm.scale(norm.standardise(x, norm.inverse_std(x)), with_bias=True)

    expected = [torch.func.vjp(apply, x)[1](gradient)[0] for gradient in gradients]
    assert_close(through_norm(norm, x, gradients), torch.stack(expected), rtol=0, atol=1e-12)


def test_graph_of_gpt2_small_shape():
    _, decomposed = make_pair("gpt2", n_layer=12, n_head=12, n_embd=24)
    graph = graph_of(decomposed)
    assert graph.edges().sum() == 32491
    assert graph.sources[:3] == ("embedding", "a0.h0", "a0.h1")
    assert graph.destinations[-2:] == (("m11", "input"), ("logits", "input"))


def test_post_norm_graph_reads_the_norm():
    _, decomposed = small_pair("opt-post-norm")
    names = set(edge_names(graph_of(decomposed)))
    assert {(u, v) for u, v, _ in names if v in ("a1.h0", "m0", "m0.norm", "logits")} == {
        ("a0.norm", "m0"),
        ("a0.norm", "m0.norm"),
        ("m0", "m0.norm"),
        ("m0.norm", "a1.h0"),
        ("m1.norm", "logits"),
    }


def test_batches_do_not_change_scores():
    _, decomposed = small_pair("gpt2")
    prompts = [*make_prompts(5), *make_prompts(2, 8)]
    graph = graph_of(decomposed)
    for request in ({"mask_value": 0.3}, {"samples": 2, "ablation": "token_mean"}, {"method": "eap_ig", "samples": 2}):
        done = []
        whole = score_edges(decomposed, prompts, EdgeRequest(**request), done.append)
        memory = 2 * bytes_of_prompt(graph, LENGTH, 8)
        parts = score_edges(decomposed, prompts[::-1], EdgeRequest(**request, memory=memory))
        close(parts.scores, whole.scores)
        assert done == [5, 2]
        assert parts.clean_loss == pytest.approx(whole.clean_loss, rel=1e-12)


def test_ranked():
    _, decomposed = small_pair("opt")
    result = score_edges(decomposed, make_prompts(), EdgeRequest(mask_value=0.0))
    sizes = [abs(result.scores[u, v].item()) for u, v in ranked(result.graph, result.scores).tolist()]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == result.graph.edges().sum()


def test_the_model_is_left_as_it_was():
    _, decomposed = small_pair("gpt2")
    decomposed.train()
    score_edges(decomposed, make_prompts(), EdgeRequest(samples=1))
    assert decomposed.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in decomposed.modules())
    assert all(p.grad is None and p.requires_grad for p in decomposed.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions(dtype):
    prompts, request = make_prompts(), EdgeRequest(samples=2)
    _, decomposed = small_pair("gpt2")
    exact = score_edges(decomposed, prompts, request).scores
    got = score_edges(decomposed.to(dtype), prompts, request).scores
    assert got.dtype == torch.float32
    scale = exact.abs().max().item()
    assert_close(got.double(), exact, rtol=0, atol=scale * (1e-4 if dtype == torch.float32 else 0.2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of the two"),
        ({"mask_value": 0.0, "samples": 2}, "exactly one of the two"),
        ({"samples": 0}, "must be at least 1, not 0"),
        ({"method": "magic", "samples": 1}, "unknown method 'magic': choose one of mask_gradient, eap_ig"),
        ({"method": "eap_ig", "mask_value": 0.0}, "eap_ig interpolates inputs, not masks"),
        ({"samples": 1, "grad_function": "odds"}, "unknown grad function 'odds': choose one of logit, prob"),
        ({"samples": 1, "answer_function": "best"}, "unknown answer function 'best': choose one of avg_diff"),
        ({"samples": 1, "ablation": "noise"}, "unknown ablation 'noise': choose one of resample, zero, mean"),
        ({"samples": 1, "side": "clean"}, "resampling the clean prompts' own outputs changes nothing"),
        ({"mask_value": math.nan}, r"mask value must be from 0 \(as it is\) to 1 \(ablated\), not nan"),
        ({"mask_value": 2.0}, r"mask value must be from 0 \(as it is\) to 1 \(ablated\), not 2.0"),
        ({"mask_value": 0.0, "side": "both"}, "only means are over both prompts of a pair, resample is not"),
        ({"mask_value": 0.0, "answer_function": "kl"}, "the divergence from the clean prediction is flat there"),
        ({"method": "eap_ig", "samples": 1, "answer_function": "kl"}, "the divergence from the clean .* is flat there"),
        ({"samples": 1, "answer_function": "kl", "grad_function": "prob"}, "kl looks at the whole prediction"),
        ({"method": "both_ends", "samples": 3}, "both_ends takes its gradients at the clean and corrupt prompts"),
        ({"mask_value": 0.5, "quadrature": "left"}, "a quadrature is of integrated gradient samples"),
        ({"samples": 3, "quadrature": "simpson"}, "unknown quadrature 'simpson': choose one of riemann, "),
        ({"mask_value": 0.0, "ablation": "batch_mean"}, "prompt 0 is of no given batch, which batch_mean needs"),
        ({"mask_value": 0.0, "over_prompts": "batch_means"}, "prompt 0 is of no given batch, whose means are added"),
        ({"mask_value": 0.0, "memory": 1024}, r"a prompt of 5 tokens needs about .* more than the memory of 1 KiB"),
    ],
)
def test_bad_requests(options, message):
    _, decomposed = small_pair("opt")
    with pytest.raises(ValueError, match=message):
        score_edges(decomposed, make_prompts(), EdgeRequest(**options))


def test_losses_that_are_no_numbers():
    _, decomposed = small_pair("opt")
    with torch.no_grad():
        decomposed.get_output_embeddings().weight[5] = math.inf
    with pytest.raises(ValueError, match="the loss of prompt 0 is nan, no finite number"):
        score_edges(decomposed, make_prompts(), EdgeRequest(mask_value=0.0))


def test_prompts_that_do_not_fit_the_request():
    _, decomposed = small_pair("opt")
    bare = PromptPair(random_ids(5), random_ids(5, 2), torch.tensor([5]), torch.tensor([], dtype=torch.long))
    with pytest.raises(ValueError, match="prompt 2 has no wrong answers, which avg_diff needs: use avg_val"):
        score_edges(decomposed, [*make_prompts(), bare], EdgeRequest(mask_value=0.0))
    score_edges(decomposed, [bare], EdgeRequest(mask_value=0.0, answer_function="avg_val"))
    with pytest.raises(ValueError, match="prompts of one length, they have 5 to 7 tokens: use token_mean"):
        score_edges(decomposed, make_prompts() + make_prompts(1, 7), EdgeRequest(mask_value=0.0, ablation="mean"))
    same = [replace(prompt, corrupt=prompt.clean) for prompt in make_prompts()]
    with pytest.raises(ValueError, match="prompt 0: clean and corrupt are the same tokens: resampling"):
        score_edges(decomposed, same, EdgeRequest(mask_value=0.0))
    alike = [replace(prompt, wrong_answers=prompt.answers) for prompt in make_prompts()]
    with pytest.raises(ValueError, match="every edge scores 0: "):
        score_edges(decomposed, alike, EdgeRequest(mask_value=0.0))
    score_edges(decomposed, same, EdgeRequest(mask_value=0.0, ablation="zero"))
    batches = [replace(prompt, batch="a") for prompt in make_prompts() + make_prompts(1, 7)]
    with pytest.raises(ValueError, match="they have 5 to 7 tokens: use batch_token_mean"):
        score_edges(decomposed, batches, EdgeRequest(mask_value=0.0, ablation="batch_mean"))
    with pytest.raises(ValueError, match="has 60 tokens, the model has 48 positions"):
        score_edges(decomposed, make_prompts(1, 60), EdgeRequest(mask_value=0.0))


@pytest.mark.parametrize("variant", ["gpt2", "opt", "opt-post-norm"])
@pytest.mark.parametrize("ablation", ["resample", "mean"])
def test_check_keeps_the_best_edges_and_ablates_the_others(variant, ablation):
    plain, decomposed = small_pair(variant)
    prompts = make_prompts()
    result = score_edges(decomposed, prompts, EdgeRequest(mask_value=0.0))
    orders = rankings(result.graph, result.scores, random=2, seed=3)
    kept = check_edges(decomposed, result.graph, prompts, orders, [4, 9], Behaviour(ablation=ablation))
    every = len(orders["score"])
    assert [(k.ranking, k.edges) for k in kept] == [
        ("score", 0),
        *((name, n) for n in (4, 9) for name in ("score", "random 0", "random 1")),
        ("score", every),
    ]
    names = {place: edge for edge, place in edge_names(result.graph).items()}
    for row in kept:
        best = {names[u, v] for u, v in orders[row.ranking][: row.edges].tolist()}
        masks = {edge: float(edge not in best) for edge in names.values()}
        losses = [
            value_of(EdgeForward(plain, p.clean, masks, lambda u, c, a=a: a[u] - c).logits, p).item()
            for p, a in zip(prompts, ablated_outputs(plain, prompts, ablation), strict=True)
        ]
        assert row.loss == pytest.approx(sum(losses) / 2, abs=1e-9)
        expected = (row.loss - kept[0].loss) / (kept[-1].loss - kept[0].loss)
        assert row.remaining == pytest.approx(expected, abs=1e-9)
    assert (kept[0].remaining, kept[-1].remaining) == (0, 1)
    clean = [value_of(EdgeForward(plain, p.clean).logits, p).item() for p in prompts]
    assert kept[-1].loss == pytest.approx(sum(clean) / 2, abs=1e-9)


def test_random_rankings_are_seeded_and_complete():
    _, decomposed = small_pair("opt")
    graph = graph_of(decomposed)
    scores = torch.rand(len(graph.sources), len(graph.destinations))
    first, again, other = (rankings(graph, scores, 2, seed) for seed in (1, 1, 2))
    assert list(first) == ["score", "random 0", "random 1"]
    assert_close(first["random 0"], again["random 0"], rtol=0, atol=0)
    every = {tuple(edge) for edge in graph.edge_indices().tolist()}
    for order in (*first.values(), *other.values()):
        assert {tuple(edge) for edge in order.tolist()} == every
    assert len({tuple(map(tuple, o["random 1"].tolist())) for o in (first, other)}) == 2


def test_counts():
    assert default_counts(40) == [1, 2, 5, 10, 20]
    assert default_counts(50) == [1, 2, 5, 10, 20]
    _, decomposed = small_pair("opt")
    graph = graph_of(decomposed)
    orders = rankings(graph, torch.zeros(len(graph.sources), len(graph.destinations)), 0, 0)
    with pytest.raises(ValueError, match=f"can't keep 999 edges: the model has {len(graph.edge_indices())}"):
        check_edges(decomposed, graph, make_prompts(), orders, [999], Behaviour())


def chosen(graph, *names):
    places = edge_names(graph)
    return torch.tensor([places[name] for name in names])


def test_circuits_are_connected():
    """By hand: what leads nowhere is pruned, greedy takes no edge before what it leads to."""
    _, decomposed = small_pair("opt")
    graph = graph_of(decomposed)
    dead = ("a0.h0", "m0", "input"), ("a1.h1", "logits", "input")
    way = ("embedding", "m0", "input"), ("m0", "a1.h0", "value"), ("a1.h0", "logits", "input")
    order = chosen(graph, dead[0], way[0], dead[1], way[1], way[2], ("embedding", "logits", "input"))
    taken = {kind: find_circuit(graph, order, 5, kind).tolist() for kind in CIRCUITS}
    assert taken["top"] == order[:5].tolist()
    assert taken["connected"] == chosen(graph, *way).tolist()
    # From the logits: the two into them first, then what is best among the edges that lead on.
    assert find_circuit(graph, order, 2, "greedy").tolist() == []
    assert find_circuit(graph, order, 3, "greedy").tolist() == []
    assert find_circuit(graph, order, 5, "greedy").tolist() == chosen(graph, *way).tolist()
    assert find_circuit(graph, order, 6, "greedy").tolist() == order[[1, 3, 4, 5]].tolist()


@pytest.mark.parametrize("variant", ["opt", "opt-post-norm"])
@pytest.mark.parametrize("kind", ["connected", "greedy"])
def test_every_edge_of_a_circuit_is_on_a_way(variant, kind):
    _, decomposed = small_pair(variant)
    graph = graph_of(decomposed)
    order = rankings(graph, torch.rand(len(graph.sources), len(graph.destinations)), 0, 0)["score"]
    for count in (5, 20, len(order)):
        kept = find_circuit(graph, order, count, kind)
        edges = [(graph.sources[u], graph.destinations[v][0]) for u, v in kept.tolist()]
        assert all(u == "embedding" or u in {w for _, w in edges} for u, _ in edges)
        assert all(v == "logits" or v in {w for w, _ in edges} for _, v in edges)
    assert len(kept) == len(order)


def test_check_of_a_connected_circuit():
    _, decomposed = small_pair("opt")
    result = score_edges(decomposed, make_prompts(), EdgeRequest(mask_value=0.0))
    orders = rankings(result.graph, result.scores, random=0, seed=0)
    top, greedy = (
        check_edges(decomposed, result.graph, make_prompts(), orders, [9], Behaviour(), circuit=kind)
        for kind in ("top", "greedy")
    )
    pruned = find_circuit(result.graph, orders["score"], 9, "greedy")
    assert (top[1].kept, greedy[1].edges, greedy[1].kept) == (9, 9, len(pruned))
    same = check_edges(
        decomposed,
        result.graph,
        make_prompts(),
        {"score": by_first(orders["score"], pruned)},
        [len(pruned)],
        Behaviour(),
    )
    assert greedy[1].loss == pytest.approx(same[1].loss, rel=1e-12)
    with pytest.raises(ValueError, match="unknown circuit 'round': choose one of top, connected, greedy"):
        check_edges(decomposed, result.graph, make_prompts(), orders, [9], Behaviour(), circuit="round")
    with pytest.raises(ValueError, match="--keep 9 is given twice"):
        check_edges(decomposed, result.graph, make_prompts(), orders, [9, 9], Behaviour())


def by_first(order, first):
    """The ranking with some of its edges in front."""
    rest = [edge for edge in order.tolist() if edge not in first.tolist()]
    return torch.tensor(first.tolist() + rest)
