"""No test compares a thing with itself: neither a tensor, nor an expression, nor a model that is its own reference."""

import ast

import pytest
import torch
from torch.testing import assert_close

from decomp.models.base import DecomposedModel
from tests.conftest import ROOT
from tests.variants import EVERY, make_pair

COMPARISONS = {"assert_close", "assert_equal", "assert_frame_equal", "assert_allclose"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x, lambda x: x),
        (lambda x: x, lambda x: x.view(2, 3)),
        (lambda x: x.T, lambda x: x.T),
        (lambda x: {"a": x, "b": 1}, lambda x: {"b": 1, "a": x.detach()}),
        (lambda x: [x + 1, x], lambda x: [x + 1, x]),
    ],
)
def test_a_tensor_is_not_compared_with_itself(one, other):
    x = torch.randn(2, 3)
    with pytest.raises(AssertionError, match="compares a tensor with itself"):
        assert_close(one(x), other(x))


def test_equal_tensors_are_compared():
    x = torch.randn(2, 3)
    assert_close(x, x.clone(), rtol=0, atol=0)
    assert_close(x[1], x[1])
    assert_close(x.expand(2, 2, 3)[0], x.T.T.clone())
    assert_close(torch.zeros(0), torch.zeros(0))
    with pytest.raises(AssertionError, match="not close"):
        assert_close({"a": x}, {"a": x + 1})


def sides(tree):
    """The two sides of everything that a module of tests asserts to be equal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) >= 2:
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in COMPARISONS:
                yield node.lineno, *node.args[:2]
        elif isinstance(node, ast.Assert):
            for test in ast.walk(node.test):
                if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq | ast.Is):
                    yield node.lineno, test.left, test.comparators[0]


def with_itself(source):
    """The lines of a module that assert that an expression equals the same expression."""
    return sorted(line for line, one, other in sides(ast.parse(source)) if ast.dump(one) == ast.dump(other))


def test_no_expression_is_compared_with_itself():
    assert with_itself("x = 1\nassert f(x) == f(x)\nassert_close(a.b, a.b, rtol=0)\nassert x == y and y is y") == [
        2,
        3,
        4,
    ]
    assert with_itself("assert f(x) == f(y)\nassert_close(a, b)") == []
    paths = [path for path in (ROOT / "tests").rglob("*.py") if path.name != "test_guard.py"]
    assert len(paths) > 50
    found = {str(path.relative_to(ROOT)): with_itself(path.read_text("utf-8")) for path in paths}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize("variant", EVERY)
def test_the_plain_model_is_another_and_transformers_own(variant):
    plain, decomposed = make_pair(variant)
    assert isinstance(decomposed, DecomposedModel)
    assert type(plain) in type(decomposed).__mro__[1:]
    assert plain.config is not decomposed.config
    assert plain.config._attn_implementation == "eager"
    assert all(type(module).__module__.startswith(("transformers.", "torch.")) for module in plain.modules())
    held = [{p.untyped_storage().data_ptr() for p in model.parameters()} for model in (plain, decomposed)]
    assert not held[0] & held[1]
