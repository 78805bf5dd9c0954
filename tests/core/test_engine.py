"""How contributions are computed changes nothing in what they are."""

import re
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from decomp.core import engine
from decomp.core import packed_mlp as mlp
from decomp.core.folding import FoldedNetwork
from decomp.core.pairs import Pairs
from decomp.core.partition import Partition
from decomp.core.workspace import Workspace, bytes_of
from decomp.io.amounts import format_bytes, parse_bytes
from tests.variants import FAMILIES, make_pair, random_ids

EXACT = {"rtol": 0, "atol": 1e-10}


def alternate(active, sources, *_):
    """A different path from one target to the next."""
    return ("dense", "sparse", "formed")[sources % 3]


PATHS = {
    "dense": lambda *_: "dense",
    "sparse": lambda *_: "sparse",
    "formed": lambda *_: "formed",
    "mixed": alternate,
}


@pytest.mark.parametrize("kept", [None, 5])
@pytest.mark.parametrize("memory", ["540KiB", "600KiB", "1GiB"])
@pytest.mark.parametrize("variant", ["opt", "opt-post-norm", "gpt2"])
def test_memory_changes_nothing(variant, memory, kept):
    _, decomposed = make_pair(variant)
    ids = random_ids(30)
    whole = decomposed.decompose(ids, decomposition_length=kept, output_layers=True)
    parts = decomposed.decompose(ids, decomposition_length=kept, output_layers=True, memory=memory)
    assert_close(parts.dense(), whole.dense(), **EXACT)
    for one, other in zip(parts.hidden_layers, whole.hidden_layers, strict=True):
        assert_close(one.dense(), other.dense(), **EXACT)


@pytest.mark.parametrize("kept", [1, 6, 13])
def test_panel_and_block_sizes_change_nothing(kept, monkeypatch):
    _, decomposed = make_pair("opt")
    ids = random_ids(13)
    whole = decomposed.decompose(ids, decomposition_length=kept).dense()
    for width, rows in product([1, 4, 64], [1, 16, 1024]):
        monkeypatch.setattr(engine, "PANEL_WIDTH", width)
        monkeypatch.setattr(engine, "BLOCK_ROWS", rows)
        assert_close(decomposed.decompose(ids, decomposition_length=kept).dense(), whole, **EXACT)


@pytest.mark.parametrize("kept", [None, 5])
@pytest.mark.parametrize("variant", ["opt", "opt-post-norm", "gpt2"])
def test_texts_that_share_products_change_nothing(variant, kept, monkeypatch):
    _, decomposed = make_pair(variant)
    texts = [random_ids(length, seed=length) for length in (3, 9, 13, 1, 4, 2)]
    alone = [decomposed.decompose(ids, decomposition_length=kept).dense() for ids in texts]
    sizes = [(64, 1024, "dense"), (64, 30, "mixed"), (4, 16, "mixed"), (4, 16, "dense"), (1, 1, "mixed")]
    for width, rows, path in sizes:
        monkeypatch.setattr(engine, "PANEL_WIDTH", width)
        monkeypatch.setattr(engine, "BLOCK_ROWS", rows)
        monkeypatch.setattr(mlp, "cheapest_path", PATHS[path])
        for result, expected in zip(decomposed.decompose_batch(texts, decomposition_length=kept), alone, strict=True):
            assert_close(result.dense(), expected, **EXACT)


@pytest.mark.parametrize(
    ("variant", "path"),
    [("opt", "sparse"), ("opt-post-norm", "sparse"), ("gpt2", "dense"), ("opt", "formed"), ("opt-post-norm", "dense")],
)
@pytest.mark.parametrize("kept", [None, 5])
@pytest.mark.parametrize("lengths", [(40,), (3, 9, 30, 1, 4, 2)])
def test_buffers_stay_within_the_memory_granted(variant, lengths, kept, path, monkeypatch):
    _, decomposed = make_pair(variant)
    made = []
    monkeypatch.setattr(engine, "Workspace", lambda like: made.append(Workspace(like)) or made[-1])
    monkeypatch.setattr(mlp, "cheapest_path", PATHS[path])
    points = [decomposed.record(random_ids(length)) for length in lengths]
    pairs = [Pairs(Partition.tokens(length), kept or 40) for length in lengths]
    granted = [800 * 2**10, 1000 * 2**10, 2**30]
    for memory in granted:
        held = engine.bytes_held(decomposed.folded(), points, memory)
        groups = len(list(engine.plan(decomposed.folded(), points, pairs, memory - held)))
        for _ in engine.propagate(decomposed.folded(), points, kept or 40, memory):
            pass
        used = bytes_of(*made[-1].buffers.values())
        assert 0 < used <= memory - held, (used, memory - held)
    assert groups == 1
    assert len(made) == len(granted)


@pytest.mark.parametrize("variant", FAMILIES)
def test_weights_that_are_folded_anew_change_nothing(variant, monkeypatch):
    _, decomposed = make_pair(variant)
    ids = random_ids(9)
    kept = decomposed.decompose(ids).dense()
    monkeypatch.setattr(FoldedNetwork, "keeps", lambda self, memory: False)
    assert_close(decomposed.decompose(ids).dense(), kept, **EXACT)


def test_weights_are_folded_anew_where_memory_is_short():
    _, decomposed = make_pair("opt", num_hidden_layers=12)
    folded, points = decomposed.folded(), [decomposed.record(random_ids(9))]
    weights = sum(folded.bytes_by_block)
    # Value, up and down of a block in float64.
    assert weights == 12 * 8 * (24 * 24 + 2 * 24 * 40)
    little, much = (engine.bytes_held(folded, points, memory) for memory in (4 * weights - 1, 4 * weights))
    assert much - little == weights - 3 * weights // 12


def test_chunks_stream_the_same_contributions():
    _, decomposed = make_pair("gpt2")
    ids = random_ids(30)
    dense = decomposed.decompose(ids).dense()
    seen = torch.zeros_like(dense)
    chunks = 0
    for chunk in decomposed.iter_contributions(ids[None], memory="540KiB"):
        chunks += 1
        for target in chunk.targets:
            sources, rows = chunk.contributions(target)
            seen[target, sources.start : sources.stop] += rows
        targets, sources = chunk.pairs()
        assert_close(dense[targets, sources], chunk.rows, **EXACT)
    assert chunks > 2
    assert_close(seen, dense, **EXACT)


@pytest.mark.parametrize("kept", [None, 5])
@pytest.mark.parametrize("variant", ["opt", "opt-post-norm", "opt-gelu", "gpt2"])
def test_every_path_through_the_mlp(variant, kept, monkeypatch):
    _, decomposed = make_pair(variant)
    ids = random_ids(30)
    monkeypatch.setattr(mlp, "cheapest_path", PATHS["dense"])
    dense = decomposed.decompose(ids, decomposition_length=kept, output_layers=True)
    for path, memory in [("dense", "540KiB"), ("sparse", "1GiB"), ("formed", "540KiB"), ("mixed", "540KiB")]:
        monkeypatch.setattr(mlp, "cheapest_path", PATHS[path])
        result = decomposed.decompose(ids, decomposition_length=kept, output_layers=True, memory=memory)
        for layer, expected in zip((*result.hidden_layers, result), (*dense.hidden_layers, dense), strict=True):
            assert_close(layer.dense(), expected.dense(), **EXACT)
            assert layer.completeness_gap() <= 1e-10


def test_target_without_active_neurons(monkeypatch):
    _, decomposed = make_pair("opt")
    with torch.no_grad():
        for block in decomposed.blocks():
            block.fc1.bias.fill_(-1e3)
    monkeypatch.setattr(mlp, "cheapest_path", PATHS["sparse"])
    assert decomposed.decompose(random_ids(30)).completeness_gap() <= 1e-10


@pytest.mark.parametrize(
    ("active", "sources", "path"),
    [(3072, 100, "dense"), (3072, 1500, "formed"), (300, 100, "sparse"), (300, 1, "dense"), (0, 50, "sparse")],
)
def test_the_cheapest_path(active, sources, path):
    assert mlp.cheapest_path(active, sources, 1, 768, 3072, "cpu") == path


def test_many_small_calls_do_not_pay_on_a_gpu():
    assert mlp.cheapest_path(300, 64, 1, 768, 3072, "cuda") == "dense"


def test_chunk_without_the_target():
    _, decomposed = make_pair("gpt2")
    chunk = next(decomposed.iter_contributions(random_ids(30)[None], decomposition_length=3, memory="540KiB"))
    with pytest.raises(ValueError, match="target 29 has no source in range"):
        chunk.contributions(29)


def test_too_little_memory():
    _, decomposed = make_pair("opt")
    with pytest.raises(ValueError, match=r"30 tokens needs .* are left: allow about .* more memory") as refused:
        decomposed.decompose(random_ids(30), memory="1KiB")
    more = re.search(r"allow about (.*) more", str(refused.value))
    decomposed.decompose(random_ids(30), memory=parse_bytes("1KiB") + int(1.01 * parse_bytes(more[1])))


@pytest.mark.parametrize(
    ("text", "count"), [("1GiB", 2**30), ("1.5 K", 1536), ("800MB", 800 * 2**20), (7, 7), ("12", 12)]
)
def test_parse_bytes(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "0", "1.2.3G", 0])
def test_parse_bytes_refuses(text):
    with pytest.raises(ValueError, match="memory must be a positive amount such as 800MiB"):
        parse_bytes(text)


@pytest.mark.parametrize(("count", "text"), [(5, "5 B"), (1536, "1.5 KiB"), (3 * 2**30, "3 GiB"), (2**42, "4 TiB")])
def test_format_bytes(count, text):
    assert format_bytes(count) == text
