"""What answers rest on: segments against the tokens they are made of, and parts of segments against all at once."""

import pytest
import torch

import decomp
from decomp.corpus.context_items import read_context_items
from decomp.corpus.contexts import in_segments, tokenise_context
from decomp.corpus.parts import sentences
from decomp.measures import Request, find_measure
from decomp.measures.contexts import parts_of, refined, score_context
from decomp.tables.contexts import answer_parts

ITEM = {
    "segments": [
        {"name": "letter", "text": "My dear John, the key is in the vase. Burn this."},
        {"name": "diary", "text": "It rained all day. We read."},
        {"name": "question", "text": "Where is the key?", "ranked": False},
    ],
    "answer": "It is in the vase. We read.",
}


@pytest.fixture(scope="module")
def pair():
    return decomp.load_model("demo-opt", dtype="float64")


@pytest.fixture(scope="module")
def context(pair):
    (item,) = read_context_items([ITEM])
    return tokenise_context(item, pair[1], pair[0].config, pair[0].max_length())


def scores(pair, context, *names):
    return score_context(pair[0], context, [find_measure(name) for name in names], Request())


def test_delta_lp_of_segments_by_definition(pair, context):
    model, (found,) = pair[0], scores(pair, context, "delta_lp")
    result = model.decompose(context.ids[None])
    n, unembedding = result.dense(), model.unembedding()
    for row, target in enumerate(context.targets):
        following = context.ids[target + 1]

        def log2_prob(hidden, token=following):
            return unembedding.logits(hidden[None]).log_softmax(-1)[0, token] / torch.log(torch.tensor(2.0)).double()

        plain = log2_prob(result.hidden[target])
        assert found.log2_prob[row] == pytest.approx(plain.item(), abs=1e-6)
        for label in range(len(context.segments) + 3):
            own = n[target, context.labels == label].sum(0)
            lost = plain - log2_prob(result.hidden[target] - own)
            assert found.scores[row, label] == pytest.approx(lost.item(), abs=1e-6)


def test_refined_is_direct(pair, context):
    measures = [find_measure(name) for name in ("delta_lp", "occlusion")]
    top = score_context(pair[0], context, measures, Request())
    assert [context.segments[number].name for number in top[0].strongest(3)] == ["diary", "letter"]
    levels = dict(refined(pair[0], top, measures, Request(), 2, 2))
    assert list(levels) == ["sentence", "word"]
    whole = in_segments(context, *zip(*[p for n in range(3) for p in parts_of(context, n, "sentence")], strict=True))
    direct = score_context(pair[0], whole, measures, Request())
    for one, other in zip(levels["sentence"], direct, strict=True):
        named = dict(zip([s.name for s in other.context.segments], other.of_answer(), strict=False))
        assert [s.text for s in one.context.segments] == [
            "It rained all day.",
            "We read.",
            "My dear John, the key is in the vase.",
            "Burn this.",
        ]
        for segment, score in zip(one.context.segments, one.of_answer(), strict=False):
            assert score == pytest.approx(named[segment.name], abs=1e-9)
    divided = [levels["sentence"][0].context.segments[number].text for number in levels["sentence"][0].strongest(2)]
    words = [segment.text for segment in levels["word"][0].context.segments]
    assert words == " ".join(divided).split()


def test_parts_of_the_answer_are_its_sentences_and_sum_to_it(pair, context):
    whole, *parts = answer_parts(context, pair[1])
    assert [part.text for part in (whole, *parts)] == ["It is in the vase. We read.", "It is in the vase.", "We read."]
    (found,) = scores(pair, context, "delta_lp")
    total = sum(found.of_tokens(part.tokens) for part in parts)
    assert total == pytest.approx(found.of_answer(), abs=1e-12)
    assert next(iter(sentences(whole.text))) == (0, len(parts[0].text))


def test_a_sum_of_first_order_scores_is_that_of_the_whole_context(pair, context):
    (found,) = scores(pair, context, "first_order")
    joined = in_segments(context, context.segments[:1], [(0, len(context.rendered.text))])
    (whole,) = scores(pair, joined, "first_order")
    total = found.of_answer()
    assert total[:3].sum() + total[4] == pytest.approx(whole.of_answer()[0] + whole.of_answer()[2], abs=1e-8)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("attention", "attention of tokens does not add up to that of an answer: choose delta_lp or occlusion"),
        ("gradient_norm", "gradient_norm of tokens does not add up to that of groups"),
        ("decomposed_logit", "decomposed_logit of tokens does not add up to that of an answer"),
    ],
)
def test_measures_that_do_not_add_up_are_refused(name, line):
    with pytest.raises(ValueError, match=line):
        find_measure(name).check_answer(Request())
    with pytest.raises(ValueError, match="an answer is scored by its log2_prob, which adds up, not by prob"):
        find_measure("delta_lp").check_answer(Request(function="prob"))
