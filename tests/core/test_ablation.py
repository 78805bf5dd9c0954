"""ΔLP against the direct computation, and where the direct computation fails."""

import math

import pytest
import torch
from torch.testing import assert_close

from decomp.core import ablation
from decomp.core.ablation import Unembedding, ablated_log2_prob, next_log2_prob
from tests.variants import make_pair, random_ids


def direct_delta_lp(result):
    unembedding = result.unembedding
    logits, y = unembedding.logits(result.hidden[:-1]), result.next_ids()
    plain = logits.log_softmax(-1).gather(1, y[:, None])
    scores = torch.zeros(len(y), len(result), dtype=logits.dtype)
    for i in range(len(y)):
        for k in result.sources(i):
            n = result.dense()[i, k]
            ablated = unembedding.weight @ (result.hidden[i] - n)
            ablated = ablated if unembedding.bias is None else ablated + unembedding.bias
            if unembedding.softcap is not None:
                ablated = unembedding.softcap * (ablated / unembedding.softcap).tanh()
            scores[i, k] = plain[i, 0] - ablated.log_softmax(-1)[y[i]]
    return scores / math.log(2)


@pytest.mark.parametrize("kept", [None, 4])
@pytest.mark.parametrize("variant", ["opt", "opt-post-norm", "gpt2", "gemma2", "phi"])
def test_against_full_logits(variant, kept, monkeypatch):
    monkeypatch.setattr(ablation, "VOCAB_TILE", 7)
    monkeypatch.setattr(ablation, "ROWS", 5)
    plain, decomposed = make_pair(variant)
    ids = random_ids(13)
    result = decomposed.decompose(ids, decomposition_length=kept)
    assert_close(result.delta_lp(), direct_delta_lp(result), rtol=0, atol=1e-10)
    with torch.no_grad():
        log_probs = plain(ids[None]).logits[0, :-1].log_softmax(-1) / math.log(2)
    assert_close(result.next_log2_prob(), log_probs.gather(1, ids[1:, None])[:, 0], rtol=0, atol=1e-10)


def test_head_bias_is_part_of_the_logits():
    hidden, weight, bias = torch.randn(4, 6), torch.randn(9, 6), torch.randn(9)
    ids = torch.tensor([1, 3, 8, 0])
    expected = (hidden @ weight.T + bias).log_softmax(-1)[torch.arange(4), ids] / math.log(2)
    assert_close(next_log2_prob(hidden, ids, Unembedding(weight, bias)), expected, rtol=0, atol=1e-5)


def test_a_soft_cap_is_part_of_the_logits():
    hidden, weight, bias = 3 * torch.randn(4, 6), torch.randn(9, 6), torch.randn(9)
    ids = torch.tensor([1, 3, 8, 0])
    logits = 2 * ((hidden @ weight.T + bias) / 2).tanh()
    expected = logits.log_softmax(-1)[torch.arange(4), ids] / math.log(2)
    head = Unembedding(weight, bias, 2.0)
    assert_close(head.logits(hidden), logits)
    assert_close(next_log2_prob(hidden, ids, head), expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"direct needs logits that are linear .* soft-capped at 2: use delta_lp"):
        head.require_linear("direct")


def test_finite_where_softmax_underflows():
    weight = torch.tensor([[300.0], [0.0], [-300.0]])
    hidden, vectors = torch.tensor([[1.0]]), torch.tensor([[-1.0], [3.0]])
    index, ids = torch.tensor([0, 0]), torch.tensor([2])
    naive = torch.log2(torch.softmax((hidden - vectors) @ weight.T, -1))[:, 2]
    assert naive[0].isinf()
    result = ablated_log2_prob(vectors, index, hidden, ids, Unembedding(weight))
    assert_close(result, torch.tensor([-1200 / math.log(2), 0.0]))


def test_half_precision_logits_are_summed_in_float32():
    weight, hidden = torch.randn(500, 8), torch.randn(3, 8)
    ids = torch.tensor([4, 40, 400])
    result = next_log2_prob(hidden.bfloat16(), ids, Unembedding(weight.bfloat16()))
    assert result.dtype == torch.float32
    expected = (hidden.bfloat16().float() @ weight.bfloat16().float().T).log_softmax(-1)[torch.arange(3), ids]
    assert_close(result, expected / math.log(2), rtol=0, atol=2e-2)
