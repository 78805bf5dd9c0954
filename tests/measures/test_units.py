"""Words and spans as targets and sources, against loops written from the definition."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from decomp.core.engine import PANEL_WIDTH
from decomp.core.partition import Partition
from decomp.measures import GradientOptions, Request, Text, find_measure
from decomp.measures.registry import Measure
from decomp.measures.result import Scores
from decomp.measures.units import in_units, sources_reached, tokens_reached, words_predicted
from tests.variants import make_pair, random_ids

# Words of one to nine tokens.
WORDS = [0, 1, 2, 2, 3, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 6, 7, 7, 8, 9, 9, 9, 10, 11]
DELTA_LP = find_measure("delta_lp")


class Loop:
    """Scores by definition, one number at a time."""

    def __init__(self, model, ids, words):
        self.ids, self.words = ids, words
        self.result = model.decompose(ids)
        self.dense, self.hidden = self.result.dense(), self.result.hidden
        head = model.get_output_embeddings()
        self.weight = head.weight.detach()
        self.plain = [self.ablated(t, 0) for t in range(len(ids) - 1)]

    def ablated(self, target, vector):
        """log2 probability of the next token with a vector taken away."""
        logits = self.weight @ (self.hidden[target] - vector)
        return (logits.log_softmax(-1)[self.ids[target + 1]] / math.log(2)).item()

    def targets(self, unit):
        """Targets that predict a token of this unit."""
        return [t for t in range(len(self.ids) - 1) if self.words[t + 1] == unit]

    def log2_prob(self, units):
        return sum(self.plain[t] for u in units for t in self.targets(u))

    def change(self, units, vector_of):
        """What the log2 probability of these units together loses."""
        return sum(self.plain[t] - self.ablated(t, vector_of(t)) for u in units for t in self.targets(u))

    def source(self, *sources):
        return lambda t: self.dense[t, [k for k in range(t + 1) if self.words[k] in sources]].sum(0)


@pytest.fixture(scope="module", params=["opt", "opt-post-norm", "opt-gelu", "gpt2", "gpt2-relu"])
def model(request):
    return make_pair(request.param)[1]


@pytest.fixture(scope="module")
def loop(model):
    return Loop(model, random_ids(len(WORDS)), WORDS)


def scored(model, loop, *, words=WORDS, targets=None, **asked):
    text = Text(loop.ids, targets or range(len(loop.ids) - 1), words=None if words is None else torch.tensor(words))
    ((result,),) = DELTA_LP(model, [text], Request(**asked))
    return result


def kept_pairs(targets, reach):
    """Every target with each of its sources."""
    return [(target, source) for target in targets for source in range(max(0, target - reach + 1), target + 1)]


def assert_scores(result, pairs, expected):
    """Whether the scores of (target, source) pairs are what they should be, each one."""
    targets, sources = zip(*pairs, strict=True)
    assert_close(result.scores[targets, sources], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


def assert_by_definition(loop, result, reach, span=1):
    pairs = kept_pairs(range(max(loop.words) + 1 - span), reach)
    spans = {target: range(target + 1, target + 1 + span) for target in result.targets}
    assert_scores(result, pairs, [loop.change(spans[target], loop.source(source)) for target, source in pairs])
    log2_prob = torch.tensor([loop.log2_prob(units) for units in spans.values()], dtype=torch.float64)
    assert_close(result.log2_prob[list(spans)], log2_prob, rtol=0, atol=1e-10)


@pytest.mark.parametrize("reach", [None, 1, 3])
def test_words_by_definition(model, loop, reach):
    result = scored(model, loop, decomposition_length=reach)
    count = max(WORDS) + 1
    assert result.targets == range(count - 1)
    assert result.decomposition_length == (reach or count)
    assert_by_definition(loop, result, reach or count)


def test_memory_that_has_room_for_one_word(model, loop, monkeypatch):
    """Panels of one source: each word is a chunk of its own."""
    whole = scored(model, loop, extra=True)
    monkeypatch.setattr("decomp.core.engine.PANEL_WIDTH", 1)
    assert PANEL_WIDTH > 1
    parted = scored(model, loop, extra=True)
    assert_close(parted.scores, whole.scores, rtol=0, atol=1e-10)
    assert_close(parted.extra, whole.extra, rtol=0, atol=1e-10)


@pytest.mark.parametrize("reach", [2, None])
def test_what_is_no_word(model, loop, reach):
    result = scored(model, loop, decomposition_length=reach, extra=True)
    assert list(result.extra) == ["<bias>", "<remainder>", "<own>"]
    for target in result.targets:
        word, older = target + 1, [s for s in range(target + 1) if reach and s <= target - reach]
        vectors = {
            "<bias>": lambda t: loop.result.bias[t],
            "<remainder>": loop.source(*older),
            "<own>": loop.source(word),
        }
        for name, vector_of in vectors.items():
            expected = loop.change([word], vector_of)
            assert_close(result.extra[name][target].item(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("span", [2, 3])
@pytest.mark.parametrize("reach", [None, 2])
@pytest.mark.parametrize("unit", ["token", "word"])
def test_spans_by_definition(model, loop, span, reach, unit):
    words = WORDS if unit == "word" else None
    if unit == "token":
        loop = replace_words(loop, list(range(len(WORDS))))
    result = scored(model, loop, words=words, decomposition_length=reach, span=span)
    count = max(loop.words) + 1
    assert result.targets == range(count - span)
    assert_by_definition(loop, result, reach or count, span)


def replace_words(loop, words):
    other = object.__new__(Loop)
    other.__dict__.update(loop.__dict__, words=words)
    return other


def test_words_of_one_token_are_tokens(model, loop):
    by_token = scored(model, loop, words=None, decomposition_length=5, extra=True)
    by_word = scored(model, loop, words=list(range(len(WORDS))), decomposition_length=5, extra=True)
    for target in by_token.targets:
        kept = slice(max(0, target - 4), target + 1)
        assert_close(by_word.scores[target, kept], by_token.scores[target, kept], rtol=0, atol=1e-10)
    for name in ("<bias>", "<remainder>"):
        assert_close(by_word.extra[name], by_token.extra[name], rtol=0, atol=1e-10)
    assert by_word.extra["<own>"].abs().max() == 0


def test_batches_equal_single_texts(model, loop):
    other = random_ids(11, seed=5)
    texts = [
        Text(loop.ids, range(3, 20), words=torch.tensor(WORDS)),
        Text(other, range(10), words=torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 6])),
    ]
    together = list(DELTA_LP(model, texts, Request(decomposition_length=2)))
    for text, (result,) in zip(texts, together, strict=True):
        ((alone,),) = DELTA_LP(model, [text], Request(decomposition_length=2))
        assert result.targets == alone.targets
        for target in result.targets:
            kept = slice(max(0, target - 1), target + 1)
            assert_close(result.scores[target, kept], alone.scores[target, kept], rtol=0, atol=1e-10)


def test_only_words_that_are_predicted_whole():
    words = torch.tensor([0, 1, 1, 2, 2, 3])
    assert words_predicted(range(5), words) == range(3)
    assert words_predicted(range(1, 5), words) == range(1, 3)
    assert words_predicted(range(2, 3), words) == range(1, 1)
    assert words_predicted(range(2, 4), words) == range(1, 2)
    assert words_predicted(range(2, 2), words) == range(2, 2)
    assert words_predicted(range(2), torch.tensor([0, 0, 1])) == range(1)


def test_tokens_reached():
    text = Text(torch.arange(6), range(5), words=torch.tensor([0, 1, 1, 2, 2, 3]))
    # From the second token of word 2 to the first token of word 1, and of word 0.
    assert tokens_reached(text, Request(decomposition_length=1)) == 3
    assert tokens_reached(text, Request(decomposition_length=2)) == 4
    assert tokens_reached(text, Request()) == 6
    assert tokens_reached(replace(text, words=None), Request(decomposition_length=2, span=3)) == 4


def test_sources_reached():
    text = Text(torch.arange(6), range(5), words=torch.tensor([0, 1, 1, 2, 2, 3]))
    # While the second token of word 2 is predicted, its first has begun beside the word before.
    assert sources_reached(text, Request(decomposition_length=1)) == 2
    assert sources_reached(text, Request(decomposition_length=2, span=2)) == 3
    assert sources_reached(text, Request()) == 4
    assert sources_reached(replace(text, words=None), Request(decomposition_length=2, span=3)) == 4
    groups = replace(text, words=None, sources=Partition.of([0, 1, 1, 1, 2, 0]))
    assert sources_reached(groups, Request(decomposition_length=1)) == 1
    assert tokens_reached(groups, Request(decomposition_length=1)) == 3


def test_measures_that_add_up():
    """Sums over tokens on both sides, and nothing lost: own, remainder and all."""
    words, torch_words = [0, 1, 1, 2, 3, 3], torch.tensor([0, 1, 1, 2, 3, 3])
    scores = torch.rand(5, 6, dtype=torch.float64).tril()
    result = Scores("m", range(5), 6, torch.zeros(5), scores, {"<remainder>": torch.rand(5, dtype=torch.float64)})
    text = Text(torch.arange(6), range(5), words=torch_words)
    summed = in_units(result, text, Request(decomposition_length=1), sum_sources=True, additive=True)
    assert summed.decomposition_length == 1
    for target in range(3):
        rows = [t for t in range(5) if words[t + 1] == target + 1]
        for source in range(4):
            columns = [k for k in range(6) if words[k] == source]
            expected = scores[rows][:, columns].sum() if source <= target else torch.tensor(0.0).double()
            if source == target:
                assert_close(summed.scores[target, source], expected)
        total = scores[rows].sum() + result.extra["<remainder>"][rows].sum()
        parts = summed.scores[target, target] + summed.extra["<remainder>"][target] + summed.extra["<own>"][target]
        assert_close(parts, total)


def test_measures_that_do_not():
    bare = Measure("m", "delta_lp:delta_lp", "", "", "")
    with pytest.raises(ValueError, match="m of tokens does not add up to that of words: score single tokens"):
        bare.check_together(Request())
    with pytest.raises(ValueError, match="m of tokens does not add up to that of groups of tokens: score single"):
        bare.check_sources(Request())
    of_logits = Measure("m", "delta_lp:delta_lp", "", "", "", ("logit", "log2_prob"), "logit", together="sum")
    of_logits.check_together(Request(function="log2_prob"))
    with pytest.raises(ValueError, match="logit of tokens does not add up to that of words: score log2_prob"):
        of_logits.check_together(Request())
    with pytest.raises(ValueError, match="not defined for rows that are no token and spans"):
        DELTA_LP.check_together(Request(span=2, extra=True))
    norms = Request(gradients=GradientOptions(reduce="norm"))
    with pytest.raises(ValueError, match="input_x_gradient of tokens does not add up"):
        find_measure("input_x_gradient").check_together(norms)
    with pytest.raises(ValueError, match="input_x_gradient of tokens does not add up to that of groups"):
        find_measure("input_x_gradient").check_sources(norms)
    with pytest.raises(ValueError, match="attention of tokens does not add up to that of words"):
        find_measure("attention").check_together(Request())


@pytest.fixture(scope="module", params=["input_x_gradient", "integrated_gradients"])
def by_token(request, model, loop):
    """A gradient measure, and what it gives for every pair of tokens."""
    measure = find_measure(request.param)
    ((scores,),) = measure(model, [Text(loop.ids, range(len(WORDS) - 1))], Request(gradients=GradientOptions(steps=2)))
    return measure, scores


@pytest.mark.parametrize(("words", "span", "reach"), [(None, 2, None), (None, 2, 2), (WORDS, 1, None), (WORDS, 2, 2)])
def test_gradients_add_up(model, loop, by_token, words, span, reach):
    """The sum over the tokens of both sides of what the measure gives for every pair of tokens."""
    (measure, plain), every = by_token, words or list(range(len(WORDS)))
    options = GradientOptions(steps=2)
    text = Text(loop.ids, range(len(WORDS) - 1), words=None if words is None else torch.tensor(words))
    ((result,),) = measure(model, [text], Request(gradients=options, span=span, decomposition_length=reach))
    count = max(every) + 1
    assert result.targets == range(count - span)
    assert result.decomposition_length == (reach or count)
    rows = {
        target: [t for t in range(len(WORDS) - 1) if target < every[t + 1] <= target + span]
        for target in result.targets
    }
    columns = [[k for k in range(len(WORDS)) if every[k] == source] for source in range(count)]
    log2_prob = torch.stack([plain.log2_prob[own].sum() for own in rows.values()])
    assert_close(result.log2_prob[list(rows)], log2_prob, rtol=0, atol=1e-10)
    pairs = kept_pairs(result.targets, reach or count)
    assert_scores(result, pairs, [float(plain.scores[rows[t]][:, columns[k]].sum()) for t, k in pairs])
