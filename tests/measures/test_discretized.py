"""Paths through words: against a slow reading of the paper, and what they must be."""

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from decomp.measures import SCORES, GradientOptions, Request, Text
from decomp.measures.discretized import STRATEGIES, Neighbors, anchors, word_path
from decomp.measures.functions import FUNCTIONS
from tests.variants import make_pair, random_ids

WORDS, WIDTH, STEPS, NEAR = 30, 4, 6, 9
EMBEDDINGS = torch.randn(WORDS, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
IDS = torch.tensor([3, 17, 3, 8])
BASELINES = {"zero": torch.zeros(WIDTH, dtype=torch.float64), "word": EMBEDDINGS[12]}


def slow_path(word, baseline, strategy):
    """One word's points from word to baseline, one candidate and dimension at a time."""

    def inside(x, start, end):
        return min(start, end) <= x <= max(start, end)

    def monotone(x, start):
        pairs = zip(x.tolist(), start.tolist(), baseline.tolist(), strict=True)
        return torch.tensor([v if inside(v, s, b) else s - (s - b) / STEPS for v, s, b in pairs], dtype=x.dtype)

    used, points, here = [word], [EMBEDDINGS[word]], word
    for _ in range(STEPS):
        order = sorted(range(WORDS), key=lambda j: (EMBEDDINGS[j] - EMBEDDINGS[here]).norm().item())
        near = [j for j in order if j != here][:NEAR]
        near = [j for j in near if j not in used and not torch.equal(EMBEDDINGS[j], baseline)]
        start = EMBEDDINGS[here]
        if strategy == "greedy":
            costs = [(EMBEDDINGS[j] - monotone(EMBEDDINGS[j], start)).norm().item() for j in near]
        else:
            costs = [(EMBEDDINGS[j] != monotone(EMBEDDINGS[j], start)).sum().item() for j in near]
        if not near:
            points.append(baseline)
            continue
        here = near[costs.index(min(costs))]
        used.append(here)
        points.append(monotone(EMBEDDINGS[here], points[-1]))
    return torch.stack([*points, baseline])


def path_of(strategy, baseline, neighbors=NEAR, memory=2**30):
    finder = Neighbors(EMBEDDINGS)
    options = GradientOptions(steps=STEPS, strategy=strategy, neighbors=neighbors)
    return torch.stack(word_path(IDS, baseline, anchors(IDS, baseline, finder, options, memory), finder, STEPS))


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_path_of_the_paper(strategy, baseline):
    vector = BASELINES[baseline]
    expected = torch.stack([slow_path(int(word), vector, strategy).flip(0) for word in IDS], 1)
    assert_close(path_of(strategy, vector), expected, rtol=0, atol=1e-12)
    assert_close(path_of(strategy, vector, memory=1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("neighbors", [1, 2, NEAR, 1000])
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_paths_are_monotone_from_the_baseline_to_the_words(strategy, baseline, neighbors):
    vector = BASELINES[baseline]
    path = path_of(strategy, vector, neighbors)
    assert len(path) == STEPS + 2
    assert_close(path[0], vector.expand_as(path[0]), rtol=0, atol=0)
    assert_close(path[-1], EMBEDDINGS[IDS], rtol=0, atol=0)
    direction = (path[-1] - path[0]).sign()
    assert ((path.diff(dim=0) * direction) >= 0).all(), path
    assert_close(path.diff(dim=0).abs().sum(0), (path[-1] - path[0]).abs(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_steps_that_count_points(strategy):
    """As inseq counts: N points, both ends among them; where an anchor would turn back, 1/N of the way is gone."""
    finder, vector = Neighbors(EMBEDDINGS), BASELINES["word"]
    options = GradientOptions(steps=STEPS, strategy=strategy, neighbors=NEAR, dig_steps="points")
    words = anchors(IDS, vector, finder, options, 2**30)
    path = torch.stack(word_path(IDS, vector, words, finder, STEPS))
    assert len(path) == STEPS
    assert_close(path[0], vector.expand_as(path[0]), rtol=0, atol=0)
    expected = torch.stack([slow_path(int(word), vector, strategy)[: STEPS - 1].flip(0) for word in IDS], 1)
    assert_close(path[1:], expected, rtol=0, atol=1e-12)


def test_a_path_of_two_points_is_the_straight_line():
    _, model = make_pair("gpt2")
    text = Text(random_ids(5), range(4))
    asked = GradientOptions(steps=2, dig_steps="points", baseline=1)
    ((scores,),) = SCORES["discretized_ig"](model, [text], Request(gradients=asked))
    left = GradientOptions(steps=1, quadrature="left", baseline=1)
    ((line,),) = SCORES["integrated_gradients"](model, [text], Request(gradients=left))
    assert_close(scores.scores, line.scores, rtol=0, atol=1e-12)
    one_point = GradientOptions(steps=1, dig_steps="points")
    with pytest.raises(ValueError, match="two ends among its points: use 2 steps or more, not 1"):
        list(SCORES["discretized_ig"](model, [text], Request(gradients=one_point)))


def test_neighbors_by_hand():
    finder = Neighbors(torch.tensor([[0.0], [1.0], [3.0], [3.5]]))
    assert_close(finder(torch.tensor([0, 3, 0]), 2), torch.tensor([[1, 2], [2, 1], [1, 2]]))
    assert finder(torch.tensor([1]), 10).tolist() == [[0, 2, 3]]


def test_neighbors_are_kept_until_a_weight_changes():
    _, model = make_pair("gpt2")
    first = model.until_weights_change(Neighbors.of_model)
    assert model.until_weights_change(Neighbors.of_model) is first
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(2)
    assert model.until_weights_change(Neighbors.of_model) is not first


@pytest.mark.parametrize("variant", ["opt-pre-norm-projected", "gpt2"])
def test_scores_are_gradients_times_steps(variant):
    plain, model = make_pair(variant)
    text = Text(random_ids(7), range(6))
    options = GradientOptions(steps=3, neighbors=5, baseline=1)
    ((scores,),) = SCORES["discretized_ig"](model, [text], Request(gradients=options))
    finder = Neighbors(model.token_embeddings()[0])
    words = anchors(text.ids, finder.embeddings[1], finder, options, 2**30)
    points = word_path(text.ids, finder.embeddings[1], words, finder, 3)
    target, expected = 5, 0
    for point, later in pairwise(points):
        x = point[: target + 1].clone().requires_grad_()
        logits = plain(inputs_embeds=x[None]).logits[0, -1:]
        value = FUNCTIONS["log2_prob"](logits, text.ids[target + 1 : target + 2], None)[0]
        (g,) = torch.autograd.grad(value, x)
        expected = expected + (g * (later - point)[: target + 1]).sum(-1)
    assert_close(scores.scores[target, : target + 1], expected, rtol=1e-10, atol=1e-12)
    assert "<residual>" in scores.extra


def test_what_it_refuses():
    _, model = make_pair("gpt2")
    text = Text(random_ids(4), range(3))
    with pytest.raises(ValueError, match="embeddings of words, which have no position"):
        list(SCORES["discretized_ig"](model, [text], Request(gradients=GradientOptions(positions=True))))
    with pytest.raises(ValueError, match="unknown strategy 'best': choose one of greedy, maxcount"):
        list(SCORES["discretized_ig"](model, [text], Request(gradients=GradientOptions(strategy="best"))))
