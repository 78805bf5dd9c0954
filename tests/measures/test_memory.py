"""Many layers and vocabularies of 50 to 256 thousand tokens: what is held at once stays within the memory granted."""

import pytest
import torch
from transformers import LlamaConfig

from decomp.core import backward
from decomp.core.ablation import Unembedding
from decomp.core.operators import attention
from decomp.measures import SCORES, Request, Text
from decomp.measures.surprisal import next_entropy, next_log2_mass
from decomp.models.llama import DecomposedLlamaForCausalLM
from tests.held import BytesHeld
from tests.variants import LLAMA

LARGE = 262_144
WIDE = {"hidden_size": 256, "intermediate_size": 32}
TEXT = Text(torch.randint(0, 50_000, (8,), generator=torch.Generator().manual_seed(0)), range(7))


def model_of(vocab, layers, **more):
    torch.manual_seed(0)
    config = LlamaConfig(
        **LLAMA | {"vocab_size": vocab, "num_hidden_layers": layers, "max_position_embeddings": 128} | more
    )
    return DecomposedLlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def large():
    return model_of(LARGE, 2)


def test_bytes_held_are_those_of_living_tensors():
    with BytesHeld() as held:
        whole = torch.zeros(1000)
        view = (whole + 1)[10:].view(9, 110)
        del whole
        assert (held.now, held.peak) == (4000, 8000)
        view.add_(1)
        del view
    assert (held.now, held.peak) == (0, 8000)


@pytest.mark.parametrize("name", ["delta_lp", "gradient_norm", "occlusion"])
def test_logits_of_a_large_vocabulary_are_never_all_there(large, name):
    """All predictions' logits have 7 MiB, those of all pairs of target and source 28 MiB, and there are copies."""
    memory = 6 * 2**20
    with BytesHeld() as held:
        list(SCORES[name](large, [TEXT], Request(memory=memory)))
    assert 0 < held.peak <= memory


def test_entropy_of_a_large_vocabulary_takes_little():
    hidden, unembedding = torch.randn(64, 8), Unembedding(torch.randn(LARGE, 8))
    for of_logits in (next_entropy, lambda *each: next_log2_mass(*each, torch.arange(LARGE) % 2 == 0)):
        with BytesHeld() as held:
            of_logits(hidden, unembedding)
        assert held.peak <= 2**25


@pytest.mark.parametrize(
    ("layers", "more", "function"),
    [(30, {}, "log2_prob"), (1, WIDE, "log2_prob"), (1, WIDE, "logit")],
    ids=["deep", "wide", "wide-logit"],
)
def test_contributions_and_what_is_made_of_them_stay_within_the_memory(layers, more, function):
    memory, ids = 7 * 2**20, torch.arange(30).repeat(1 if layers > 1 else 4)
    model, text = model_of(61, layers, **more), Text(ids, range(len(ids) - 1))
    with BytesHeld() as held:
        list(SCORES["delta_lp"](model, [text], Request(memory=memory, function=function)))
    assert memory / 8 < held.peak <= memory


def test_the_mask_of_a_long_text_is_planned_for():
    """It takes more than a quarter of what a recorded text of 100 tokens holds."""
    model, ids = model_of(61, 2), torch.arange(100).remainder(61)
    with BytesHeld() as held:
        point = model.record(ids)
    assert held.now == pytest.approx(point.nbytes, rel=0.01)


@pytest.mark.parametrize("heads", [2, 6])
def test_a_readout_of_a_long_text_has_never_all_attention_weights(heads, monkeypatch):
    """Those of a layer with six heads have 1.5 MiB, and there would be several tensors as large."""
    monkeypatch.setattr(attention, "TARGET_BLOCK", 16)
    monkeypatch.setattr(backward, "TARGET_BLOCK", 16)
    length = 256
    model = model_of(61, 2, num_attention_heads=heads, num_key_value_heads=2, max_position_embeddings=length)
    point = model.record(torch.arange(length).remainder(61))
    back = backward.Backward(model.network(), point, "pull", 0)
    with BytesHeld() as held:
        back(torch.ones(1, point.hidden.shape[1]), [length - 1])
    assert held.peak <= back.bytes_needed(length - 1, length) < 2**21
