"""A guard against tests that compare a thing with itself: `assert_close` refuses one tensor on both sides."""

from collections.abc import Mapping, Sequence
from functools import wraps

import torch


def same_tensor(one, other):
    """Return whether two values are one tensor: the same memory as a whole, read in the same way.

    Parts of one memory may be compared: where a part begins is a thing that can be wrong.
    """
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)) or one.is_meta or not one.numel():
        return False
    if any(x.numel() * x.element_size() < x.untyped_storage().nbytes() for x in (one, other)):
        return one is other
    places = [(x.data_ptr(), x.dtype, x.shape, x.stride()) for x in (one, other)]
    return places[0] == places[1]


def shared(one, other):
    """Return whether two values are one tensor, or collections that hold one tensor at one place."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return any(shared(one[key], other[key]) for key in one.keys() & other.keys())
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        return any(map(shared, one, other))
    return same_tensor(one, other)


def guarded(assert_close):
    """Return `assert_close` that fails where both sides are the same tensor."""

    @wraps(assert_close)
    def refusing(actual, expected, **options):
        if shared(actual, expected):
            raise AssertionError("the test compares a tensor with itself: it can't fail")
        return assert_close(actual, expected, **options)

    return refusing
