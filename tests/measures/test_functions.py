"""Attributed functions against their definitions."""

import math

import pytest
import torch
from torch.testing import assert_close

from decomp.measures.functions import FUNCTIONS, find_function
from decomp.measures.registry import CONTRAST_FUNCTIONS

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], dtype=torch.float64)
TOKEN, FOIL = torch.tensor([0, 2]), torch.tensor([2, 1])
PROBS = LOGITS.softmax(-1)
EXPECTED = {
    "logit": torch.tensor([1.0, -1.0]),
    "log2_prob": torch.stack([PROBS[0, 0], PROBS[1, 2]]).log2(),
    "prob": torch.stack([PROBS[0, 0], PROBS[1, 2]]),
    "contrast_logit": torch.tensor([0.5, -4.0]),
    "contrast_log2_prob": torch.stack([PROBS[0, 0] / PROBS[0, 2], PROBS[1, 2] / PROBS[1, 1]]).log2(),
    "contrast_prob": torch.stack([PROBS[0, 0] - PROBS[0, 2], PROBS[1, 2] - PROBS[1, 1]]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_definition(name):
    assert_close(find_function(name)(LOGITS, TOKEN, FOIL), EXPECTED[name].double(), rtol=0, atol=1e-12)


def test_no_underflow():
    logits = torch.tensor([[0.0, 1e4]])
    assert_close(FUNCTIONS["log2_prob"](logits, torch.tensor([0]), None), torch.tensor([-1e4 / math.log(2)]))


@pytest.mark.parametrize("name", CONTRAST_FUNCTIONS)
def test_contrast_without_foil(name):
    with pytest.raises(ValueError, match="needs a foil"):
        FUNCTIONS[name](LOGITS, TOKEN, None)


def test_unknown_function():
    with pytest.raises(ValueError, match="unknown function 'odds': choose one of logit, log2_prob"):
        find_function("odds")
