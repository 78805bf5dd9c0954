"""Pairs, segments and panels cover each pair once, in order."""

import pytest
import torch
from torch.testing import assert_close

from decomp.core.pairs import joined, make_panel, pair_indices, pair_offset, source_ranges, sources_of


@pytest.mark.parametrize("length", [1, 2, 7, 20])
@pytest.mark.parametrize("kept", [1, 3, 7, 20, 50])
def test_pair_indices(length, kept):
    expected = [(i, k) for i in range(length) for k in sources_of(i, kept)]
    targets, sources = pair_indices(length, kept)
    assert_close(torch.stack([targets, sources], 1), torch.tensor(expected))
    assert [pair_offset(i, kept) for i in range(length)] == [
        expected.index((i, max(0, i - kept + 1))) for i in range(length)
    ]
    assert pair_offset(length, kept) == len(expected)


@pytest.mark.parametrize("block_rows", [1, 5, 1000])
@pytest.mark.parametrize("width", [1, 3, 64])
@pytest.mark.parametrize("kept", [1, 4, 30])
@pytest.mark.parametrize("length", [1, 2, 17])
def test_panels_hold_every_pair_once_in_order(length, kept, width, block_rows):
    pairs = []
    for sources in source_ranges(length, width):
        panel = make_panel(0, sources, length, kept, 100, block_rows)
        row = 100
        for block in panel.blocks:
            assert block.rows.start == row
            for segment in block.segments:
                assert segment.row == row
                pairs += [(i, k) for i in segment.targets for k in segment.sources]
                row = segment.rows.stop
                assert set(segment.sources) <= set(block.sources)
                assert set(segment.targets) <= set(block.targets)
            assert block.rows.stop == row
            assert row - block.rows.start <= max(block_rows, width)
    assert sorted(pairs) == [(i, k) for i in range(length) for k in sources_of(i, kept)]
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 200])
def test_source_ranges(length):
    ranges = source_ranges(length, 64)
    assert [k for r in ranges for k in r] == list(range(length))
    assert max(map(len, ranges)) <= 64


def test_neighbours_are_joined_up_to_so_many_rows():
    panels, row = [], 0
    for text, length in enumerate((3, 4, 2, 20, 2, 2)):
        panels.append(make_panel(text, range(length), length, length, row, 1000))
        row = panels[-1].rows.stop
    assert [[panel.text for panel in run] for run in joined(panels, 20)] == [[0, 1, 2], [3], [4, 5]]
    assert [[panel.text for panel in run] for run in joined(panels[:2] + panels[4:], 20)] == [[0, 1], [4, 5]]
    assert list(joined([], 20)) == []
