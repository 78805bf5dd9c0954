"""Groups of tokens as sources: each is carried as one stream, and is the sum of its tokens."""

import math

import pytest
import torch
from torch.testing import assert_close

from decomp.core import engine, storage
from decomp.core.decomposition import load
from decomp.core.partition import Partition
from tests.variants import FAMILIES, make_pair, random_ids

LENGTH = 23
EXACT = {"rtol": 0, "atol": 1e-10}
LABELS = {
    "runs": [0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6],
    "holes": [0, 1, 1, 2, 2, 1, 1, 3, 3, 0, 4, 2, 2, 2, 5, 5, 6, 1, 6, 4, 7, 7, 3],
    "one": [0] * LENGTH,
    "tokens": list(range(LENGTH)),
}
LABELS["random"] = torch.randint(9, (LENGTH,), generator=torch.Generator().manual_seed(3)).tolist()


def sums(dense, partition):
    """Contributions of tokens, added up by source."""
    total = dense.new_zeros(len(dense), partition.count, dense.shape[-1])
    return total.index_add_(1, partition.labels, dense)


def kept_sums(dense, partition, kept):
    """The same, less the sources of which more than `kept` others have begun by a target since they did."""
    total = sums(dense, partition)
    for target in range(len(dense)):
        begun = len({*partition.labels[: target + 1].tolist()})
        total[target, : max(0, begun - kept)] = 0
    return total


@pytest.mark.parametrize("kept", [None, 3])
@pytest.mark.parametrize("variant", [*FAMILIES, "opt-post-norm"])
def test_a_source_is_the_sum_of_its_tokens_at_every_layer(variant, kept):
    _, decomposed = make_pair(variant)
    ids, partition = random_ids(LENGTH), Partition.of(LABELS["holes"])
    tokens = decomposed.decompose(ids, output_layers=True)
    groups = decomposed.decompose(ids, output_layers=True, sources=LABELS["holes"], decomposition_length=kept)
    for whole, own in zip((*tokens.hidden_layers, tokens), (*groups.hidden_layers, groups), strict=True):
        assert_close(own.dense(), kept_sums(whole.dense(), partition, kept or LENGTH), **EXACT)
        assert own.completeness_gap() <= 1e-10
        assert_close(own.bias, whole.bias, **EXACT)


@pytest.mark.parametrize("kept", [None, 1, 4])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("variant", ["opt", "llama"])
def test_any_partition(variant, labels, kept):
    _, decomposed = make_pair(variant)
    ids, partition = random_ids(LENGTH), Partition.of(LABELS[labels])
    groups = decomposed.decompose(ids, sources=LABELS[labels], decomposition_length=kept)
    assert_close(groups.dense(), kept_sums(decomposed.decompose(ids).dense(), partition, kept or LENGTH), **EXACT)
    assert groups.completeness_gap() <= 1e-10
    assert groups.sources(LENGTH - 1).stop == partition.count
    if kept is None:
        assert groups.remainder().count_nonzero() == 0


@pytest.mark.parametrize("activation_rule", ["tangent", "secant"])
def test_groups_are_as_exact_under_either_rule(activation_rule):
    _, decomposed = make_pair("opt-gelu")
    ids, partition = random_ids(LENGTH), Partition.of(LABELS["runs"])
    tokens = decomposed.decompose(ids, activation_rule=activation_rule)
    groups = decomposed.decompose(ids, activation_rule=activation_rule, sources=partition)
    assert_close(groups.dense(), sums(tokens.dense(), partition), **EXACT)


def test_finer_sources_add_up_to_coarser_ones():
    _, decomposed = make_pair("llama")
    ids, coarse = random_ids(LENGTH), Partition.of(LABELS["holes"])
    whole = decomposed.decompose(ids, sources=coarse)
    # The strongest source is split into its tokens, the others stay.
    split = int(whole.dense()[-1].norm(dim=-1).argmax())
    finer = torch.where(coarse.labels == split, torch.arange(LENGTH) + coarse.count, coarse.labels)
    refined = decomposed.decompose(ids, sources=finer)
    tokens = decomposed.decompose(ids).dense()[-1]
    parts = {label: n for n, label in enumerate(dict.fromkeys(finer.tolist()))}
    for position in coarse.positions(range(split, split + 1)).tolist():
        assert_close(refined.contributions(LENGTH - 1)[parts[int(finer[position])]], tokens[position], **EXACT)
    own = [parts[label] for label in finer[coarse.labels == split].tolist()]
    assert len(own) > 1
    assert_close(refined.contributions(LENGTH - 1)[own].sum(0), whole.contributions(LENGTH - 1)[split], **EXACT)


@pytest.mark.parametrize("width", [1, 2, 64])
@pytest.mark.parametrize("rows", [1, 16, 1024])
@pytest.mark.parametrize("kept", [2, LENGTH])
def test_panel_and_block_sizes_change_nothing(width, rows, kept, monkeypatch):
    _, decomposed = make_pair("opt")
    ids = random_ids(LENGTH)
    expected = kept_sums(decomposed.decompose(ids).dense(), Partition.of(LABELS["holes"]), kept)
    monkeypatch.setattr(engine, "PANEL_WIDTH", width)
    monkeypatch.setattr(engine, "BLOCK_ROWS", rows)
    found = decomposed.decompose(ids, decomposition_length=kept, sources=LABELS["holes"])
    assert_close(found.dense(), expected, **EXACT)


@pytest.mark.parametrize("memory", ["540KiB", "1GiB"])
@pytest.mark.parametrize("variant", ["gpt2", "gpt_neox"])
def test_texts_of_tokens_and_groups_share_products(variant, memory):
    _, decomposed = make_pair(variant)
    texts = [random_ids(length, seed=length) for length in (3, LENGTH, 1, LENGTH)]
    labels = [[0, 0, 1], LABELS["runs"], [5], LABELS["tokens"]]
    found = decomposed.decompose_batch(texts, sources=labels, decomposition_length=4, memory=memory)
    for ids, own, result in zip(texts, labels, found, strict=True):
        alone = decomposed.decompose(ids)
        assert_close(result.dense(), kept_sums(alone.dense(), Partition.of(own), 4), **EXACT)


def test_padding_is_taken_off_the_labels_too():
    _, decomposed = make_pair("opt")
    short, long = random_ids(5), random_ids(7, seed=1)
    ids = torch.stack([torch.cat([torch.ones(2, dtype=torch.long), short]), long])
    mask = (torch.arange(7) >= torch.tensor([[2], [0]])).long()
    labels = torch.tensor([[9, 9, 0, 0, 1, 1, 0], [0, 1, 1, 2, 2, 2, 3]])
    padded = decomposed.decompose_batch(ids, attention_mask=mask, sources=labels)
    alone = [decomposed.decompose(short, sources=labels[0, 2:]), decomposed.decompose(long, sources=labels[1])]
    for one, other in zip(padded, alone, strict=True):
        assert_close(one.dense(), other.dense(), **EXACT)


def test_chunks_of_groups_stream_the_same_contributions():
    _, decomposed = make_pair("gpt2")
    ids = random_ids(LENGTH)
    dense = decomposed.decompose(ids, sources=LABELS["holes"]).dense()
    seen = torch.zeros_like(dense)
    for chunk in decomposed.iter_contributions(ids[None], sources=[LABELS["holes"]], memory="540KiB"):
        targets, sources = chunk.pairs()
        seen[targets, sources] += chunk.rows
    assert_close(seen, dense, **EXACT)


def test_delta_lp_takes_a_whole_source_away():
    _, decomposed = make_pair("llama")
    ids = random_ids(LENGTH)
    groups = decomposed.decompose(ids, sources=LABELS["holes"])
    scores = groups.delta_lp()
    unembedding, target, source = groups.need_unembedding(), 15, 2
    without = groups.hidden[target] - groups.dense()[target, source]
    logs = [unembedding.logits(h).log_softmax(-1)[ids[target + 1]] for h in (groups.hidden[target], without)]
    assert_close(scores[target, source], (logs[0] - logs[1]) / math.log(2), **EXACT)
    assert scores[15, 7] == 0


def test_labels_that_do_not_fit_the_text():
    _, decomposed = make_pair("opt")
    with pytest.raises(ValueError, match="for every token: the texts have 5 tokens, the labels 4"):
        decomposed.decompose(random_ids(5), sources=[0, 0, 1, 1])
    with pytest.raises(ValueError, match="for each text: 1 texts, 2 of labels"):
        decomposed.decompose_batch([random_ids(5)], sources=[[0] * 5, [0] * 5])


@pytest.mark.parametrize("names", [None, ("a", "b", "c", "d", "e", "f", "g")])
def test_groups_are_stored_with_their_names(tmp_path, names):
    _, decomposed = make_pair("opt")
    partition = Partition(Partition.of(LABELS["runs"]).labels, names)
    result = decomposed.decompose(random_ids(LENGTH), sources=partition, decomposition_length=3)
    result.save(tmp_path / "groups.safetensors")
    read = load(tmp_path / "groups.safetensors")
    assert_close(read.dense(), result.dense(), rtol=0, atol=0)
    assert read.partition.labels.tolist() == LABELS["runs"]
    assert read.partition.names == names


def stored(folder, **changed):
    """A file of groups, some of whose tensors or header are others."""
    _, decomposed = make_pair("opt")
    result = decomposed.decompose(random_ids(5), sources=[0, 0, 1, 1, 1])
    for name, value in changed.items():
        object.__setattr__(result.partition, name, value)
    result.save(folder / "groups.safetensors")
    return folder / "groups.safetensors"


def test_older_readers_refuse_groups(tmp_path, monkeypatch):
    path = stored(tmp_path)
    monkeypatch.setattr(storage, "FORMAT_VERSION", 2)
    with pytest.raises(ValueError, match=r"has format version 3, this package reads up to 2: upgrade it"):
        load(path)


def test_stored_labels_that_are_not_the_tokens(tmp_path):
    with pytest.raises(ValueError, match="sources that are not those of its 5 tokens in order"):
        load(stored(tmp_path, labels=torch.tensor([1, 1, 0, 0, 0])))


def test_stored_names_of_other_sources(tmp_path):
    with pytest.raises(ValueError, match="3 names for 2 sources"):
        load(stored(tmp_path, names=("a", "b", "c")))


def test_the_original_format_has_no_groups(tmp_path):
    _, decomposed = make_pair("opt")
    result = decomposed.decompose(random_ids(5), sources=[0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="has tokens for sources, not groups of them: use safetensors"):
        storage.save_pt(result, tmp_path, "x_0", "x")
    assert not any(tmp_path.iterdir())
