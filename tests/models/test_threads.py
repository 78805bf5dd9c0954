"""Several threads on one model: everybody gets what they would get alone."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch.testing import assert_close

from decomp.locate.edges.graph import graph_of
from decomp.locate.edges.passes import UniformMask
from decomp.measures import SCORES, Request, Text
from decomp.models.running import running
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


def test_parts_that_were_in_evaluation_mode_stay_so():
    """A model that trains but for some layers is as it was."""
    _, model = make_pair("gpt2")
    model.train()
    model.blocks()[0].eval()
    before = [module.training for module in model.modules()]
    with running(model, "eager"):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before


def with_gradients(model, ids):
    return model.record(ids, embedding=model.record(ids).embedding)


def patched(model, ids):
    return model.patched_logits(ids[None], UniformMask(graph_of(model)))


@pytest.mark.parametrize("work", [with_gradients, patched])
def test_hooks_are_gone_before_the_next_thread_may_run(monkeypatch, work):
    """Else it would meet another thread's: with a text of the same length, wrong numbers without an error."""
    _, model = make_pair("gpt2")
    left = []

    @contextmanager
    def seen(*args):
        with running(*args):
            yield
        left.append([m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks or hasattr(m, "recorded")])

    for place in ("recording", "patching"):
        monkeypatch.setattr(f"decomp.models.{place}.running", seen)
    work(model, TEXTS[0])
    assert left
    assert not any(left)
