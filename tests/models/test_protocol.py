"""What those who look into models ask of them is what models answer."""

import inspect

import pytest

from decomp.core.model import Columns, Model, Patch
from decomp.locate.edges.passes import EdgeMasks, UniformMask
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
