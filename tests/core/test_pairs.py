"""Pairs, segments and panels cover each pair once, in order."""

import pytest
import torch
from torch.testing import assert_close

from decomp.core.pairs import Pairs, joined, make_panel, pair_offset, source_ranges
from decomp.core.partition import Partition

LABELS = {
    "tokens": list(range(17)),
    "one": [0] * 17,
    "runs": [0, 1, 1, 1, 2, 2, 3, 4, 4, 4, 4, 4, 4, 5, 5, 6, 6],
    "holes": [0, 1, 2, 1, 0, 3, 3, 1, 4, 2, 2, 5, 5, 0, 4, 5, 6],
}


def kept_sources(labels, target, kept):
    """Sources that have begun by a target, at most so many of them, by the definition."""
    begun = sorted({*labels[: target + 1]})
    return begun[-kept:]


def test_labels_are_numbered_in_the_order_of_their_first_positions():
    partition = Partition.of([7, 7, -3, 7, 0, -3, 5])
    assert partition.labels.tolist() == [0, 0, 1, 0, 2, 1, 3]
    assert partition.begins == [0, 2, 4, 6]
    assert partition.begun.tolist() == [1, 1, 2, 2, 3, 3, 4]
    assert not partition.is_tokens
    assert Partition.of([9, 4, 6]).is_tokens


@pytest.mark.parametrize("labels", [[], [[0, 1]], [0.5, 1.0]])
def test_labels_of_another_shape_or_kind_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels of shape \(T,\), one integer per token"):
        Partition.of(labels)


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("kept", [1, 3, 7, 17, 50])
def test_pairs_are_numbered_target_by_target(name, kept):
    labels = LABELS[name]
    pairs = Pairs(Partition.of(labels), kept)
    expected = [(i, k) for i in range(17) for k in kept_sources(labels, i, kept)]
    assert_close(torch.stack(pairs.indices(), 1), torch.tensor(expected))
    assert pairs.offsets[:17] == [next(n for n, (i, _) in enumerate(expected) if i == target) for target in range(17)]
    assert [*pairs.sources(12)] == kept_sources(labels, 12, kept)
    assert len(pairs) == len(expected)
    everything = [i for i in range(17) if len({*labels[: i + 1]}) <= kept]
    assert [*range(pairs.covered)] == everything


@pytest.mark.parametrize("length", [0, 1, 2, 7, 20])
@pytest.mark.parametrize("kept", [1, 3, 7, 20, 50])
def test_the_number_of_pairs_of_tokens_is_known_without_listing_them(length, kept):
    assert pair_offset(length, kept) == sum(min(i + 1, kept) for i in range(length))


@pytest.mark.parametrize("block_rows", [1, 5, 1000])
@pytest.mark.parametrize("width", [1, 3, 64])
@pytest.mark.parametrize("kept", [1, 4, 30])
@pytest.mark.parametrize("labels", [[0], [0, 1], *LABELS.values()])
def test_panels_hold_every_pair_once_in_order(labels, kept, width, block_rows):
    layout, seen, own = Pairs(Partition.of(labels), kept), [], []
    for sources in source_ranges(layout.partition.count, width):
        panel = make_panel(0, sources, layout, 100, block_rows)
        row = 100
        for block in panel.blocks:
            assert block.rows.start == row
            assert block.begin == labels.index(block.sources.start)
            for segment in block.segments:
                assert segment.row == row
                assert segment.begin == labels.index(segment.sources.start)
                seen += [(i, k) for i in segment.targets for k in segment.sources]
                row = segment.rows.stop
                assert set(segment.sources) <= set(block.sources)
                assert set(segment.targets) <= set(block.targets)
            assert block.rows.stop == row
            assert row - block.rows.start <= max(block_rows, width)
        rows, targets = panel.diagonal()
        own += [(target, seen[row - 100 - len(panel)]) for row, target in zip(rows, targets.tolist(), strict=True)]
    assert sorted(seen) == [(i, k) for i in range(len(labels)) for k in kept_sources(labels, i, kept)]
    assert len(set(seen)) == len(seen)
    # Each target stands once with the source that it belongs to, where that is kept.
    expected = [(i, (i, k)) for i, k in enumerate(labels) if k in kept_sources(labels, i, kept)]
    assert sorted(own) == expected


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 200])
def test_source_ranges(length):
    ranges = source_ranges(length, 64)
    assert [k for r in ranges for k in r] == list(range(length))
    assert max(map(len, ranges)) <= 64


def test_neighbours_are_joined_up_to_so_many_rows():
    panels, row = [], 0
    for text, length in enumerate((3, 4, 2, 20, 2, 2)):
        panels.append(make_panel(text, range(length), Pairs(Partition.tokens(length), length), row, 1000))
        row = panels[-1].rows.stop
    assert [[panel.text for panel in run] for run in joined(panels, 20)] == [[0, 1, 2], [3], [4, 5]]
    assert [[panel.text for panel in run] for run in joined(panels[:2] + panels[4:], 20)] == [[0, 1], [4, 5]]
    assert list(joined([], 20)) == []
