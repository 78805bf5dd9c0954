"""Measures with groups of tokens as sources: their definition, sums over tokens, a group taken away, or a refusal."""

import math
from functools import cache

import pytest
import torch
from torch.testing import assert_close

from decomp.core.partition import Partition
from decomp.measures import SCORES, GradientOptions, OcclusionOptions, Request, Text, find_measure
from decomp.measures.occlusion import hidden_without
from tests.variants import make_pair, random_ids

# Two sources go on after others have begun; the first token is a source of its own.
LABELS = [0, 1, 1, 1, 2, 2, 1, 3, 3, 3, 2, 4, 4, 4, 4, 5]
IDS = random_ids(len(LABELS))
SOURCES = Partition.of(LABELS)
QUICK = GradientOptions(steps=2, neighbors=4)
EXACT = {"rtol": 0, "atol": 1e-10}
SUMMED = [name for name, measure in SCORES.items() if measure.together in ("sum", "sources")]
REFUSED = [name for name in SCORES if name not in SUMMED and not SCORES[name].takes_groups]


@pytest.fixture(scope="module", params=["opt", "llama"])
def model(request):
    return make_pair(request.param)[1]


def scored(model, name, sources=SOURCES, targets=None, **asked):
    text = Text(IDS, targets or range(len(IDS) - 1), sources=sources)
    ((result,),) = find_measure(name)(model, [text], Request(gradients=QUICK, **asked))
    return result


@pytest.fixture(scope="module")
def of_tokens(model):
    """What is scored where each token is a source, once for each measure."""
    return cache(lambda name: scored(model, name, None))


def begun(target):
    return len({*LABELS[: target + 1]})


def test_every_measure_sums_takes_groups_or_refuses():
    assert [
        *("gradient_norm", "attention_norm", "attention_norm_resln", "value_zeroing", "value_zeroing_rollout")
    ] == REFUSED
    assert {*SCORES} - {*SUMMED, *REFUSED} == {"delta_lp", "first_order", "decomposed_logit", "occlusion"}


@pytest.mark.parametrize("kept", [None, 1, 3])
@pytest.mark.parametrize("name", [*SUMMED, "first_order", "decomposed_logit"])
def test_sums_over_the_tokens_of_each_source(model, of_tokens, name, kept):
    result, tokens = scored(model, name, decomposition_length=kept), of_tokens(name)
    assert result.scores.shape == (len(IDS) - 1, 6)
    for target in range(len(IDS) - 1):
        sources = result.sources(target)
        assert sources == range(max(0, begun(target) - (kept or 6)), begun(target))
        own = [[k for k, label in enumerate(LABELS) if label == source and k <= target] for source in sources]
        expected = torch.stack([tokens.scores[target, each].sum() for each in own])
        assert_close(result.scores[target, sources.start : sources.stop], expected, **EXACT)


@pytest.mark.parametrize("kept", [None, 2])
@pytest.mark.parametrize("extra", [False, True])
def test_delta_lp_by_definition(model, kept, extra):
    result = scored(model, "delta_lp", decomposition_length=kept, extra=extra)
    groups, head = model.decompose(IDS, sources=SOURCES), model.unembedding()

    def log2_prob(target, vector):
        return head.logits(groups.hidden[target] - vector).log_softmax(-1)[IDS[target + 1]] / math.log(2)

    for target in range(len(IDS) - 1):
        plain, vectors = log2_prob(target, 0), groups.contributions(target)
        for source in result.sources(target):
            expected = plain - log2_prob(target, vectors[source])
            assert_close(result.scores[target, source], expected, **EXACT)
        if extra:
            older = vectors[: result.sources(target).start].sum(0)
            assert_close(result.extra["<remainder>"][target], plain - log2_prob(target, older), **EXACT)


def test_readouts_of_few_targets_are_pulled_back(model):
    few = range(13, 14)
    carried, pulled = (scored(model, "decomposed_logit", targets=t) for t in (None, few))
    assert_close(pulled.scores[13], carried.scores[13], **EXACT)
    assert_close(pulled.extra["<bias>"][13], carried.extra["<bias>"][13], **EXACT)


@pytest.mark.parametrize("replacement", ["mask", "key", 7])
@pytest.mark.parametrize("kept", [None, 2])
def test_occlusion_takes_a_whole_source_away(model, replacement, kept):
    options = OcclusionOptions(replacement)
    result = scored(model, "occlusion", decomposition_length=kept, occlusion=options)
    head = model.unembedding()
    for target in (3, 6, 10, 14):
        text = IDS[: target + 1]
        plain = model.record(text).hidden[-1]
        for source in range(begun(target)):
            removed = torch.tensor([[label == source for label in LABELS[: target + 1]]])
            hidden, empty = hidden_without(model, text, removed, replacement)
            assert not empty[0, -1]
            logs = [head.logits(h).log_softmax(-1)[IDS[target + 1]] for h in (plain, hidden[0, -1])]
            expected = (logs[0] - logs[1]) / math.log(2) if source in result.sources(target) else torch.tensor(0.0)
            assert_close(result.scores[target, source], expected.double(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} of tokens does not add up to that of groups of tokens"):
        scored(make_pair("opt")[1], name)


def test_words_are_predicted_from_sentences(model):
    """A word's score is the sum over its tokens; a source that begins within the word is its own."""
    words = torch.tensor([0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 8, 9, 9, 10, 11])
    text = Text(IDS, range(len(IDS) - 1), words=words, sources=SOURCES)
    ((result,),) = find_measure("delta_lp")(model, [text], Request(own=True))
    tokens = scored(model, "delta_lp")
    for target in result.targets:
        rows = [t for t in range(len(IDS) - 1) if words[t + 1] == target + 1]
        before = begun(rows[0])
        assert result.sources(target) == range(before)
        assert_close(result.scores[target, :before], tokens.scores[rows, :before].sum(0), **EXACT)
        assert_close(result.extra["<own>"][target], tokens.scores[rows, before:].sum(), **EXACT)


def test_several_texts_with_sources_of_their_own(model):
    other = random_ids(9, seed=4)
    texts = [
        Text(IDS, range(4, 15), sources=SOURCES),
        Text(other, range(8), sources=Partition.of([0, 0, 0, 1, 1, 2, 2, 2, 0])),
        Text(other, range(8)),
    ]
    together = list(find_measure("delta_lp")(model, texts, Request(decomposition_length=2, extra=True)))
    for text, (result,) in zip(texts, together, strict=True):
        ((alone,),) = find_measure("delta_lp")(model, [text], Request(decomposition_length=2, extra=True))
        rows = slice(text.targets.start, text.targets.stop)
        assert_close(result.scores[rows], alone.scores[rows], **EXACT)
        assert_close(result.extra["<remainder>"][rows], alone.extra["<remainder>"][rows], **EXACT)
