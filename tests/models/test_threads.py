"""Several threads on one model: everybody gets what they would get alone."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.testing import assert_close

from decomp.measures import SCORES, Request, Text
from tests.variants import make_pair, random_ids

TEXTS = [random_ids(length, seed=length) for length in (5, 8, 11, 14)]


def contributions(model, ids):
    return model.decompose(ids).dense()


def gradients(model, ids):
    ((scores,),) = SCORES["input_x_gradient"](model, [Text(ids, range(len(ids) - 1))], Request())
    return scores.scores


def without_a_source(model, ids):
    ((scores,),) = SCORES["occlusion"](model, [Text(ids, range(len(ids) - 1))], Request())
    return scores.scores


def plain_logits(model, ids):
    with torch.no_grad():
        return model(ids[None]).logits[0]


@pytest.mark.parametrize("variant", ["opt", "gpt2", "qwen3"])
def test_threads_share_a_model(variant):
    _, model = make_pair(variant)
    work = [(what, ids) for what in (contributions, gradients, without_a_source, plain_logits) for ids in TEXTS]
    alone = [what(model, ids) for what, ids in work]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: job[0](model, job[1]), work * 3))
    for result, expected in zip(together, alone * 3, strict=True):
        assert_close(result, expected, rtol=1e-12, atol=1e-12)
    assert model.config._attn_implementation != "decomp_recording"
