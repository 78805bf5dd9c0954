"""What those who look into models ask of them is what models answer."""

import inspect

import pytest

from decomp.core.model import Columns, Model, Patch
from decomp.corpus.tokenizer import Tokenizer
from decomp.locate.edges.passes import EdgeMasks, UniformMask
from decomp.models import load_model
from decomp.models.base import DecomposedModel
from decomp.models.sites import Projection


def members_of(protocol):
    return {name: member for name, member in vars(protocol).items() if not name.startswith("_")}


@pytest.mark.parametrize(
    ("protocol", "kind"), [(Model, DecomposedModel), (Patch, UniformMask), (Patch, EdgeMasks)], ids=str
)
def test_methods_take_what_they_are_given(protocol, kind):
    for name, member in members_of(protocol).items():
        if isinstance(member, property):
            assert hasattr(kind, name) or name == "config", name
            continue
        expected, there = (list(inspect.signature(each).parameters.values()) for each in (member, getattr(kind, name)))
        assert [p.name for p in there[: len(expected)]] == [p.name for p in expected], name
        assert all(p.default is not inspect.Parameter.empty for p in there[len(expected) :]), name


def test_a_projection_is_columns_of_a_module():
    assert set(Projection.__dataclass_fields__) == set(members_of(Columns))


def test_tokenizers_of_transformers_are_tokenizers():
    _, tokenizer = load_model("demo-gpt2")
    for name in members_of(Tokenizer):
        assert hasattr(tokenizer, name), name
    encoded = tokenizer("A cat.", add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    assert len(encoded["input_ids"]) == len(encoded["offset_mapping"]) <= len(tokenizer)
    assert "".join(tokenizer.convert_ids_to_tokens(encoded["input_ids"])) == "AĠcat."
    assert tokenizer.decode(encoded["input_ids"], clean_up_tokenization_spaces=False) == "A cat."
