"""Texts that are computed together."""

import pytest

from decomp.corpus.batches import in_batches


@pytest.mark.parametrize(
    ("lengths", "size", "expected"),
    [
        ([3, 3, 3, 3, 3], 2, [range(0, 2), range(2, 4), range(4, 5)]),
        (
            [3, 4, 3, 1, 10, 2, 12, 1],
            None,
            [range(0, 3), range(3, 4), range(4, 5), range(5, 6), range(6, 7), range(7, 8)],
        ),
        ([1] * 25, None, [range(0, 10), range(10, 20), range(20, 25)]),
        ([], None, []),
        ([], 3, []),
    ],
)
def test_batches(lengths, size, expected):
    assert in_batches(lengths, size, tokens=10) == expected
