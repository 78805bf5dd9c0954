"""Rankings of segments, judged by what an answer loses without them."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import decomp
from decomp.corpus.context_items import read_context_items
from decomp.corpus.contexts import tokenise_context
from decomp.evaluation.contexts import SegmentRemoval, ranking_metrics
from tests.measures.test_contexts import ITEM

KNOWN = {**ITEM, "evidence": "letter"}


@pytest.fixture(scope="module")
def pair():
    return decomp.load_model("demo-opt", dtype="float64")


@pytest.fixture(scope="module")
def removing(pair):
    (item,) = read_context_items([KNOWN])
    return SegmentRemoval(*pair, tokenise_context(item, pair[1], pair[0].config, 512), True)


def plain_log2_prob(model, ids, begin, mask=None):
    """By the model's own forward method, with an attention mask of transformers."""
    with torch.no_grad():
        logits = model(ids[None], attention_mask=None if mask is None else mask[None]).logits[0]
    log_prob = logits[begin - 1 : -1].log_softmax(-1).gather(1, ids[begin:, None])
    return float(log_prob.sum()) / math.log(2)


def test_a_segment_is_removed_from_the_text(pair, removing):
    model, tokenizer = pair
    context = removing.context
    assert removing.plain() == pytest.approx(plain_log2_prob(model, context.ids, context.begin), abs=1e-5)
    text = "\n".join(segment["text"] for segment in ITEM["segments"][1:])
    answer = context.ids[context.begin :]
    prompt = torch.tensor([model.config.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]])
    expected = plain_log2_prob(model, torch.cat([prompt, answer]), len(prompt))
    assert removing.removed([0]) == pytest.approx(expected, abs=1e-5)


def test_a_segment_is_masked_where_it_stands(pair, removing):
    model, context = pair[0], removing.context
    # OPT counts positions by its mask: they are given, so that they stay.
    mask = (context.labels != 0).long()
    positions = torch.arange(len(context.ids))
    with torch.no_grad():
        logits = model(context.ids[None], attention_mask=mask[None], position_ids=positions[None]).logits[0]
    log_prob = logits[context.begin - 1 : -1].log_softmax(-1).gather(1, context.ids[context.begin :, None])
    assert removing.masked([0]) == pytest.approx(float(log_prob.sum()) / math.log(2), abs=1e-5)


def test_metrics_by_definition(removing):
    context = replace(removing.context, segments=tuple(replace(s, ranked=True) for s in removing.context.segments))
    lost, scores = np.array([5.0, 1.0, 2.0]), np.array([0.1, 0.3, 0.2])
    asked = []

    def left(numbers):
        asked.append(list(numbers))
        return -10.0 - sum(lost[list(numbers)])

    found = dict(ranking_metrics(scores, lost, [0, 1, 2], context, -10.0, left))
    assert found["spearman"] == pytest.approx(-1.0)
    assert found["top_1_drop"] == 1.0
    assert (found["top_3_drop"], asked) == (8.0, [[1, 2, 0]])
    assert found["reciprocal_rank"] == pytest.approx(1 / 3)


def test_the_evaluation_has_every_ranking(done):
    found = decomp.evaluate_context([KNOWN], "demo-opt", measures=("delta_lp", "attention"))
    assert set(found["removal"]) == {"removed", "masked"}
    assert set(found["measure"]) == {"delta_lp", "attention", "<leave_one_out>", "<random>"}
    own = found.select(measure="<leave_one_out>")
    spearman = [row.mean for row in own if row.metric == "spearman"]
    assert spearman == pytest.approx([1.0, 1.0])
    for removal in ("removed", "masked"):
        drops = {row.measure: row.mean for row in found.select(removal=removal, metric="top_1_drop")}
        assert max(drops.values()) == drops["<leave_one_out>"]
    Path("letters.jsonl").write_text(json.dumps(KNOWN), "utf-8")
    text = done("evaluate", "context", "letters.jsonl", "demo-opt", "--measure", "delta_lp")
    assert "without a segment: removed" in text
    assert "reciprocal_rank" in text


def test_measures_without_scores_of_groups_are_refused():
    with pytest.raises(ValueError, match="gradient_norm of tokens does not add up to that of groups"):
        decomp.evaluate_context([KNOWN], "demo-opt", measures=("gradient_norm",))
