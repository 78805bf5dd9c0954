"""Attention measures against hand-computed examples, and against the plain models with hooks and loops."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from decomp.core.network import Affine, Attention, Norm
from decomp.core.operating_point import FrozenBranch, FrozenStage
from decomp.core.operators import FrozenAttention, FrozenNorm
from decomp.measures import SCORES, AttentionOptions, Request, Text
from decomp.measures.attention import with_residual
from decomp.measures.attention_norm import norm_of_heads, norm_of_sum, norm_with_residual_and_norm
from decomp.measures.maps import normalise_rows, rollout
from decomp.measures.transformed import AttentionStep
from decomp.measures.value_zeroing import cosine_distance
from tests.reference import layer_norm, network_of
from tests.variants import make_pair, random_ids

VARIANTS = ["opt", "opt-post-norm", "opt-pre-norm-projected", "opt-gelu", "gpt2", "gpt2-inverse-layer"]
FAMILY = [
    "attention",
    "attention_rollout",
    "attention_norm",
    "attention_norm_resln",
    "value_zeroing",
    "value_zeroing_rollout",
]
LENGTH = 9
EXACT = {"rtol": 0, "atol": 1e-10}


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def scores_of(name, model, ids, layers="last", heads="mean", final_norm=False, **options):
    request = Request(attention=AttentionOptions(layers, heads, final_norm), **options)
    (results,) = SCORES[name](model, [Text(ids, range(len(ids) - 1))], request)
    return {result.measure: result.scores for result in results}


def plain_attention(plain, ids):
    with torch.no_grad():
        return [a[0] for a in plain(ids[None], output_attentions=True).attentions]


@torch.no_grad()
def plain_blocks(plain, ids, hooks=()):
    """Input and output of every block of the plain model."""
    inputs, outputs, handles = [], [], list(hooks)
    for layer in network_of(plain).layers:
        handles.append(
            layer.register_forward_pre_hook(
                lambda module, args, kwargs: inputs.append((args[0] if args else kwargs["hidden_states"])[0]),
                with_kwargs=True,
            )
        )
        handles.append(layer.register_forward_hook(lambda module, args, output: outputs.append(output[0])))
    plain(ids[None])
    for handle in handles:
        handle.remove()
    return inputs, outputs


# By hand


def test_rollout_of_two_tokens_by_hand():
    # Heads [[1, 0], [0.2, 0.8]] and [[1, 0], [0.6, 0.4]]: mean [[1, 0], [0.4, 0.6]], with the residual [0.2, 0.8].
    first = with_residual(double([[[1, 0], [0.2, 0.8]], [[1, 0], [0.6, 0.4]]]).mean(0))
    assert_close(first, double([[1, 0], [0.2, 0.8]]), **EXACT)
    second = with_residual(double([[1, 0], [1, 0]]))
    assert_close(second, double([[1, 0], [0.5, 0.5]]), **EXACT)
    # 0.5 + 0.5 · 0.2, and 0.5 · 0.8.
    assert_close(list(rollout([first, second]))[-1], double([[1, 0], [0.6, 0.4]]), **EXACT)


def test_rows_are_renormalised():
    short = with_residual(double([[0.9, 0], [0.4, 0.4]]))
    assert_close(short, double([[1, 0], [0.4 / 1.8, 1.4 / 1.8]]), **EXACT)
    assert_close(normalise_rows(double([[2, 0], [0, 0]])), double([[1, 0], [0, 1]]), **EXACT)


def two_token_step(norm_after=None, inverse_std_after=None):
    """Two heads of width 1 on two states; head 0 reads the first number and doubles it, head 1 swaps places."""
    weights = double([[[1, 0], [0.5, 0.5]], [[1, 0], [0.25, 0.75]]])
    value = Affine(double([[2, 0], [0, 1]]), double([0, 1]))
    output = Affine(double([[1, 0], [1, 0]]), double([7, 7]))
    return AttentionStep(
        0,
        FrozenStage(
            (
                FrozenBranch(
                    FrozenAttention(Attention(value, output, 2, 2), lambda first, last: weights[:, first:last])
                ),
            ),
            None if norm_after is None else FrozenNorm(norm_after, inverse_std_after),
        ),
        double([[1, 3], [2, -2]]),
    )


def test_norms_of_two_tokens_by_hand():
    step = two_token_step()
    # Values: head 0 has 2 and 4, head 1 has 3 + 1 and −2 + 1; both heads write the first number.
    assert_close(norm_of_heads(step, range(2)), double([[[2, 0], [1, 2]], [[4, 0], [1, 0.75]]]), **EXACT)
    # The heads add up before the norm: 1 + 1 and 2 − 0.75.
    assert_close(norm_of_sum(step, range(2)), double([[6, 0], [2, 1.25]]), **EXACT)
    # Residuals (1, 3) and (2, −2) join on the diagonal: (7, 3) and (3.25, −2).
    diagonal = [58**0.5, (3.25**2 + 4) ** 0.5]
    expected = double([[diagonal[0], 0], [2, diagonal[1]]])
    assert_close(norm_with_residual_and_norm(step, range(2)), expected, **EXACT)


def test_norm_with_layer_norm_by_hand():
    norm = Norm(double([1, 2]), double([5, 5]), 0.0)
    step = two_token_step(norm, double([0.5, 0.25]))
    # (7, 3) is centred to (2, −2), times 1/σ = 0.5 and γ: (1, −2). (2, 0) becomes (1, −1) / 4: (0.25, −0.5).
    # (3.25, −2) is centred to ±2.625 / 4.
    expected = double([[5**0.5, 0], [0.3125**0.5, 2.625 / 4 * 5**0.5]])
    assert_close(norm_with_residual_and_norm(step, range(2)), expected, **EXACT)


def test_cosine_distance_keeps_small_angles():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    y = torch.tensor([[2.0, 2e-5], [0.0, 3.0]])
    assert_close(cosine_distance(x, y), torch.tensor([0.5e-10, 1.0]), rtol=1e-4, atol=0)


# Against the plain models


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_those_of_the_plain_model(variant):
    plain, model = make_pair(variant)
    ids = random_ids(LENGTH)
    weights = plain_attention(plain, ids)
    assert_close(scores_of("attention", model, ids)["attention"], weights[-1].mean(0)[:-1], **EXACT)
    mean = scores_of("attention", model, ids, "mean")["attention[mean]"]
    assert_close(mean, torch.stack(weights).mean((0, 1))[:-1], **EXACT)
    heads = scores_of("attention", model, ids, "each", "each")
    assert list(heads) == [f"attention[{layer}.{head}]" for layer in range(2) for head in range(4)]
    for name, scores in heads.items():
        layer, head = map(int, name[len("attention[") : -1].split("."))
        assert_close(scores, weights[layer][head][:-1], **EXACT)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rollout_by_loops(variant):
    plain, model = make_pair(variant)
    ids = random_ids(LENGTH)
    through = torch.eye(LENGTH, dtype=torch.float64)
    each = scores_of("attention_rollout", model, ids, "each")
    for layer, weights in enumerate(plain_attention(plain, ids)):
        step = torch.zeros_like(through)
        for i in range(LENGTH):
            for j in range(i + 1):
                step[i, j] = 0.5 * sum(w[i, j] for w in weights) / len(weights) + 0.5 * (i == j)
            step[i] /= step[i].sum()
        through = step @ through
        assert_close(each[f"attention_rollout[{layer}]"], through[:-1], **EXACT)
    assert_close(scores_of("attention_rollout", model, ids)["attention_rollout"], through[:-1], **EXACT)


def transformed_by_loops(block, weights, x):
    """T[h][i, j] = α^h[i, j] (x_j W_V^h + b_V^h) W_O^h, with the norm before inside."""
    if block.norm_first:
        x = torch.stack(
            [block.attention_norm.linear(v, block.attention_norm.sigma(v)) + block.attention_norm.constant() for v in x]
        )
    width, length = block.query[0].shape[1] // block.heads, len(x)
    vectors = torch.zeros(block.heads, length, length, x.shape[1], dtype=x.dtype)
    for h in range(block.heads):
        part = slice(h * width, (h + 1) * width)
        for i in range(length):
            for j in range(i + 1):
                value = x[j] @ block.value[0][:, part] + block.value[1][part]
                vectors[h, i, j] = weights[h, i, j] * (value @ block.output[0][part])
    return vectors


@pytest.mark.parametrize("variant", VARIANTS)
def test_norms_by_loops(variant):
    plain, model = make_pair(variant)
    ids = random_ids(LENGTH)
    network = network_of(plain)
    inputs, _ = plain_blocks(plain, ids)
    each = scores_of("attention_norm", model, ids, "each")
    heads = scores_of("attention_norm", model, ids, "each", "each")
    resln = scores_of("attention_norm_resln", model, ids, "each")
    for layer, (block, weights) in enumerate(zip(network.blocks, plain_attention(plain, ids), strict=True)):
        vectors = transformed_by_loops(block, weights, inputs[layer])
        assert_close(each[f"attention_norm[{layer}]"], vectors.sum(0).norm(dim=-1)[:-1], **EXACT)
        for h in range(4):
            assert_close(heads[f"attention_norm[{layer}.{h}]"], vectors[h].norm(dim=-1)[:-1], **EXACT)
        whole = vectors.sum(0)
        for i in range(LENGTH):
            whole[i, i] += inputs[layer][i]
            if not block.norm_first:
                sigma = block.attention_norm.sigma(whole[i].sum(0) + block.output[1])
                whole[i] = torch.stack([block.attention_norm.linear(v, sigma) for v in whole[i]])
        future = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        assert_close(resln[f"attention_norm_resln[{layer}]"], whole.norm(dim=-1).masked_fill(future, 0)[:-1], **EXACT)


def zero_values(plain, layer, j):
    """A hook that zeroes the value vectors of token j in one layer, counted from 0."""

    def zero(module, args, output):
        output = output.clone()
        output[:, j, -plain.config.hidden_size :] = 0
        return output

    return network_of(plain).values[layer].register_forward_hook(zero)


@pytest.mark.parametrize("variant", VARIANTS)
def test_value_zeroing_by_hooks(variant):
    plain, model = make_pair(variant)
    ids = random_ids(LENGTH)
    _, outputs = plain_blocks(plain, ids)
    each = scores_of("value_zeroing", model, ids, "each")
    through = torch.eye(LENGTH, dtype=torch.float64)
    for number in range(len(outputs)):
        distances = torch.zeros(LENGTH, LENGTH, dtype=torch.float64)
        for j in range(LENGTH):
            _, changed = plain_blocks(plain, ids, [zero_values(plain, number, j)])
            distances[:, j] = 1 - torch.cosine_similarity(changed[number], outputs[number], dim=-1)
        distances = (distances / distances.sum(-1, keepdim=True)).tril()
        through = distances @ through
        assert_close(each[f"value_zeroing[{number}]"], distances[:-1], **EXACT)
    assert_close(scores_of("value_zeroing", model, ids)["value_zeroing"], distances[:-1], **EXACT)
    for j in range(LENGTH):
        hook = zero_values(plain, -1, j)
        changed = plain.base_model(ids[None]).last_hidden_state[0].detach()
        hook.remove()
        distances[:, j] = 1 - torch.cosine_similarity(changed, plain.base_model(ids[None]).last_hidden_state[0], dim=-1)
    distances = (distances / distances.sum(-1, keepdim=True)).tril().detach()
    normed = scores_of("value_zeroing", model, ids, "each", final_norm=True)
    assert_close(normed[f"value_zeroing[{len(outputs) - 1}]"], distances[:-1], **EXACT)
    assert_close(normed["value_zeroing[0]"], each["value_zeroing[0]"], rtol=0, atol=0)
    rolled = scores_of("value_zeroing_rollout", model, ids)["value_zeroing_rollout"]
    assert_close(rolled, through[:-1], **EXACT)


# Properties


@pytest.mark.parametrize("variant", ["opt", "opt-post-norm", "gpt2"])
@pytest.mark.parametrize("name", [*FAMILY, "alti_logit"])
def test_memory_changes_nothing(name, variant):
    _, model = make_pair(variant)
    ids = random_ids(LENGTH)
    plenty, little = (scores_of(name, model, ids, "last", memory=memory) for memory in (2**30, 1))
    assert_close(little, plenty, **EXACT)


@pytest.mark.parametrize("name", [*FAMILY, "alti_logit"])
def test_only_the_targets_asked_for(name):
    _, model = make_pair("opt")
    ids = random_ids(LENGTH)
    whole = scores_of(name, model, ids)[name]
    ((some,),) = SCORES[name](model, [Text(ids, range(3, 6))], Request(decomposition_length=2))
    assert some.targets == range(3, 6)
    assert some.decomposition_length == 2
    assert_close(some.scores[3:6], whole.triu(-1)[3:6], **EXACT)


@pytest.mark.parametrize("name", [*FAMILY, "alti_logit"])
@pytest.mark.parametrize("variant", ["opt", "gpt2"])
def test_texts_together_are_each_alone(name, variant):
    _, model = make_pair(variant)
    texts = [Text(random_ids(n, seed=n), range(n - 1)) for n in (5, 11, 1, 8)]
    for text, (together,) in zip(texts, SCORES[name](model, texts, Request()), strict=True):
        assert_close(together.scores, scores_of(name, model, text.ids)[name], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["attention", "attention_rollout", "value_zeroing", "value_zeroing_rollout"])
@pytest.mark.parametrize("layers", ["last", "mean", "each"])
def test_shares_sum_to_one(name, layers):
    _, model = make_pair("gpt2")
    for scores in scores_of(name, model, random_ids(LENGTH), layers).values():
        assert_close(scores.sum(-1), torch.ones(LENGTH - 1, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("name", [n for n in FAMILY if n not in ("attention", "attention_norm")])
def test_no_scores_per_head(name):
    _, model = make_pair("gpt2")
    with pytest.raises(ValueError, match=f"{name} takes all heads of a layer together: ask for it without --heads"):
        scores_of(name, model, random_ids(4), heads="each")


@pytest.mark.parametrize("name", [*FAMILY, "alti_logit"])
def test_a_model_without_attention_weights_is_refused(name):
    plain, _ = make_pair("gpt2")
    with pytest.raises(ValueError, match="a GPT2LMHeadModel does not record the attention weights"):
        scores_of(name, plain, random_ids(4))


@pytest.mark.parametrize("name", [*FAMILY, "alti_logit"])
def test_a_layer_without_attention_is_refused(name, monkeypatch):
    _, model = make_pair("gpt2")
    record = model.record

    def without_attention(*args, **options):
        point = record(*args, **options)
        return replace(point, blocks=(*point.blocks[:-1], point.blocks[-1][1:]))

    monkeypatch.setattr(model, "record", without_attention)
    with pytest.raises(ValueError, match="layer 1 of this model does not begin with attention"):
        scores_of(name, model, random_ids(4))


# ALTI-Logit


def alti_logit_by_loops(plain, ids, direction):
    """Scores and left-out parts, every vector pushed to the end of the network on its own."""
    network = network_of(plain)
    inputs, outputs = plain_blocks(plain, ids)
    length = len(ids)
    stages = []  # (output-bearing norm, σ per position) of each sublayer, in order
    pieces = []  # (stage, kind, target, source, vector)
    mixing = torch.eye(length, dtype=torch.float64)
    mixed = {}
    for layer, (block, weights) in enumerate(zip(network.blocks, plain_attention(plain, ids), strict=True)):
        x = inputs[layer]
        vectors = transformed_by_loops(block, weights, x).sum(0)
        y = x + vectors.sum(1) + block.output[1]
        mixed[layer] = mixing
        contributions = torch.zeros(length, length, dtype=torch.float64)
        for i in range(length):
            for j in range(i + 1):
                given = vectors[i, j] + (x[i] if i == j else 0)
                contributions[i, j] = max(0.0, float(y[i].abs().sum() - (y[i] - given).abs().sum()))
                pieces.append((len(stages), layer, i, j, vectors[i, j]))
            pieces.append((len(stages), "<bias>", i, None, block.output[1]))
        mixing = normalise_rows(contributions) @ mixing
        norm = block.attention_norm
        stages.append(None if block.norm_first else (norm, [norm.sigma(v) for v in y]))
        if not block.norm_first:
            y = torch.stack([norm.linear(v, norm.sigma(v)) + norm.constant() for v in y])
            pieces += [(len(stages), "<bias>", i, None, y[i] * 0 + norm.constant()) for i in range(length)]
        inner = y
        if block.norm_first:
            inner = torch.stack(
                [block.mlp_norm.linear(v, block.mlp_norm.sigma(v)) + block.mlp_norm.constant() for v in y]
            )
        given = block.activation(inner @ block.up[0] + block.up[1]) @ block.down[0] + block.down[1]
        pieces += [(len(stages), "<mlp>", i, None, given[i]) for i in range(length)]
        norm = block.mlp_norm
        stages.append(None if block.norm_first else (norm, [norm.sigma(v) for v in y + given]))
        if not block.norm_first:
            pieces += [(len(stages), "<bias>", i, None, y[i] * 0 + norm.constant()) for i in range(length)]
    pieces += [(0, "<embedding>", i, None, inputs[0][i]) for i in range(length)]
    if network.final_norm is not None:
        norm = layer_norm(network.final_norm)
        stages.append((norm, [norm.sigma(v) for v in outputs[-1]]))
        pieces += [(len(stages), "<bias>", i, None, inputs[0][i] * 0 + norm.constant()) for i in range(length)]
    project = network.project_out
    matrix = project.weight.T.detach() if project is not None else torch.eye(inputs[0].shape[1], dtype=torch.float64)
    scores = torch.zeros(length, length, dtype=torch.float64)
    extra = {name: torch.zeros(length, dtype=torch.float64) for name in ("<embedding>", "<mlp>", "<bias>")}
    for stage, kind, i, j, vector in pieces:
        for after in stages[stage:]:
            if after is not None:
                vector = after[0].linear(vector, after[1][i])
        read = vector @ matrix @ direction[i]
        if j is None:
            extra[kind][i] += read
        else:
            scores[i] += read * mixed[kind][j]
    return scores, extra


@pytest.mark.parametrize("function", ["logit", "contrast_logit", "contrast_log2_prob"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_alti_logit_by_loops(variant, function):
    plain, model = make_pair(variant)
    ids, foils = random_ids(6), random_ids(6, seed=9)[1:]
    head = plain.get_output_embeddings().weight.detach()
    direction = head[ids[1:]]
    if function != "logit":
        direction = direction - head[foils]
    if function == "contrast_log2_prob":
        direction = direction / torch.tensor(2.0, dtype=torch.float64).log()
    ((result,),) = SCORES["alti_logit"](model, [Text(ids, range(5), foils)], Request(function=function))
    scores, extra = alti_logit_by_loops(plain, ids, torch.cat([direction, direction[:1] * 0]))
    assert_close(result.scores, scores[:-1], **EXACT)
    for name, values in extra.items():
        assert_close(result.extra[name], values[:-1], **EXACT)


@pytest.mark.parametrize("length", [None, 3])
@pytest.mark.parametrize("function", ["logit", "contrast_logit"])
@pytest.mark.parametrize("variant", [*VARIANTS, "opt-no-bias", "opt-no-affine", "opt-no-final-norm", "gpt2-tanh"])
def test_alti_logit_sums_to_the_logit(variant, function, length):
    plain, model = make_pair(variant)
    ids, foils = random_ids(LENGTH), random_ids(LENGTH, seed=9)[1:]
    request = Request(function=function, decomposition_length=length)
    ((result,),) = SCORES["alti_logit"](model, [Text(ids, range(LENGTH - 1), foils)], request)
    with torch.no_grad():
        logits = plain(ids[None]).logits[0, :-1]
    expected = logits.gather(1, ids[1:, None])[:, 0]
    if function == "contrast_logit":
        expected = expected - logits.gather(1, foils[:, None])[:, 0]
    kept = torch.stack([result.scores[i, max(0, i + 1 - (length or LENGTH)) : i + 1].sum() for i in range(LENGTH - 1)])
    assert_close(kept + sum(result.extra.values()), expected, **EXACT)
