"""Gradients of each target, truncated at it, against autograd."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from decomp.core.backward import GROUP_ROWS, Backward, rows_of
from decomp.core.operators import attention
from decomp.core.readout_rows import BiasShares, ReadoutRows
from decomp.core.rules import Rules
from decomp.models import recomputed
from tests.core.test_exactness import plain_blocks, starting_at
from tests.variants import EVERY, FAMILIES, make_pair, random_ids


def backward_of(model, ids, memory=2**30):
    return Backward(model.network(), recorded_for_gradients(model, ids), "differentiate", memory)


def recorded_for_gradients(model, ids):
    return model.record(ids, embedding=model.record(ids).embedding)


def autograd_of_targets(plain, first, embedding, ids, g):
    """Of each hidden[i] · g[i], in a pass of its own, with respect to what the first block is given: zero after i."""
    count = len(ids)
    x = embedding.expand(count, -1, -1).clone().requires_grad_()
    with starting_at(first, x):
        hidden = plain.base_model(input_ids=ids.expand(count, -1)).last_hidden_state
    own = torch.arange(count)
    return torch.autograd.grad((hidden[own, own] * g).sum(), x)[0]


@pytest.mark.parametrize("variant", EVERY)
def test_gradients_of_every_target_are_autograd_s(variant):
    """In one group, in parts, and with attention weights that are made anew for want of memory."""
    assert_gradients_are_autograd_s(variant, [(2**30, range(8)), (0, range(3, 6))])


@pytest.mark.parametrize("variant", ["opt-post-norm", "gpt2", "gemma3", "mixtral"])
def test_gradients_of_some_targets_with_much_memory_and_little(variant):
    """The other variants differ in the weights that are made anew alone; of mixtures, one token leaves experts out."""
    assert_gradients_are_autograd_s(variant, product((0, 2**30), (range(8), range(3, 6), range(1))))


def assert_gradients_are_autograd_s(variant, ways):
    plain, model = make_pair(variant)
    plain.requires_grad_(False)
    ids = random_ids(8)
    g = torch.randn(8, model.unembedding().weight.shape[1], dtype=torch.float64)
    first, *_ = plain_blocks(plain, model)
    point = recorded_for_gradients(model, ids)
    expected = autograd_of_targets(plain, first, point.embedding, ids, g)
    for memory, targets in ways:
        with torch.no_grad():
            rows = Backward(model.network(), point, "differentiate", memory)(g[targets.start : targets.stop], targets)
        assert_close(rows, expected[targets.start : targets.stop, : targets.stop], rtol=1e-10, atol=1e-10)
        for row, target in zip(rows, targets, strict=True):
            assert not row[target + 1 :].any()


def test_starting_from_the_embedding_is_the_ordinary_pass():
    for variant in ("opt-post-norm", *FAMILIES):
        _, model = make_pair(variant)
        ids = random_ids(9)
        point = model.record(ids)
        again = model.record(ids, embedding=point.embedding)
        assert_close(again.hidden, point.hidden, rtol=0, atol=0)
        other = model.record(ids.flip(0), embedding=point.embedding)
        assert_close(other.hidden, point.hidden, rtol=0, atol=0)


def test_groups_hold_every_target_once_within_rows_and_memory():
    _, model = make_pair("gpt2")
    backward = backward_of(model, random_ids(40))
    for memory in (2**30, backward.bytes_needed(39, 40) + 1000, backward.bytes_needed(30, 40)):
        groups = list(backward.groups(range(3, 40), memory))
        assert [target for group in groups for target in group] == list(range(3, 40))
        for group in groups:
            assert len(group) == 1 or rows_of(group.start, group.stop) <= GROUP_ROWS
            assert backward.bytes_needed(group.start, group.stop) <= memory
    with pytest.raises(ValueError, match=r"the way back from one target with .* positions needs .* allow more memory"):
        list(backward.groups(range(3, 40), backward.bytes_needed(39, 40) - 1))


# What a rule sets are slopes, and to the way back one slope is like another: a variant of each family has both rules.
@pytest.mark.parametrize(
    ("variant", "rules"),
    [*((each, Rules("secant", "half")) for each in EVERY), *((each, Rules("tangent", "frozen")) for each in FAMILIES)],
    ids=str,
)
def test_pull_is_the_transpose_of_carry(variant, rules):
    _, model = make_pair(variant)
    ids = random_ids(12)
    point = model.record(ids, rules=rules)
    targets = [11, 3, 7, 7]
    g = torch.randn(len(targets), point.hidden.shape[1], dtype=torch.float64)
    pulled = Backward(model.network(), point, "pull", 2**30)(g, targets)
    stream = torch.randn_like(point.embedding)
    *_, carried = point.carry(stream, with_bias=False)
    for row, readout, target in zip(pulled, g, targets, strict=True):
        assert_close((row * stream).sum(), readout @ carried[target], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", EVERY)
def test_pulled_readouts_are_those_of_the_contributions(variant):
    _, model = make_pair(variant)
    ids = random_ids(12)
    point, contributions = model.record(ids), model.decompose(ids).dense()
    g = torch.randn(12, point.hidden.shape[1], dtype=torch.float64)
    pulled = Backward(model.network(), point, "pull", 2**30)(g, range(12))
    assert_close((pulled * point.embedding).sum(-1), (contributions * g[:, None]).sum(-1), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("variant", ["opt-pre-norm-projected", *FAMILIES])
def test_one_readout_of_several_states_is_the_sum_of_those_of_each(variant):
    _, model = make_pair(variant)
    point = model.record(random_ids(12))
    backward = Backward(model.network(), point, "pull", 2**30)
    states = torch.randn(9, point.hidden.shape[1], dtype=torch.float64)
    states[:4] = 0
    together = backward.of_states(states)
    assert_close(together, backward(states[4:], range(4, 9)).sum(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", ["opt-pre-norm-projected", *FAMILIES])
def test_a_long_text_goes_through_attention_in_strips(variant, monkeypatch):
    """Each on the positions up to its last target alone."""
    _, model = make_pair(variant)
    ids, targets = random_ids(13), [12, 4]

    def results():
        point = model.record(ids)
        g = torch.ones(len(targets), point.hidden.shape[1], dtype=torch.float64)
        *_, bias = point.carry(torch.zeros_like(point.embedding), with_bias=True)
        return point.hidden, Backward(model.network(), point, "pull", 0)(g, targets), bias

    at_once = results()
    monkeypatch.setattr(recomputed, "TARGET_BLOCK", 5)
    monkeypatch.setattr(attention, "TARGET_BLOCK", 5)
    for whole, in_strips in zip(at_once, results(), strict=True):
        assert_close(in_strips, whole, rtol=1e-12, atol=1e-12)


def test_biases_of_experts_are_read_where_a_row_visits_them():
    _, model = make_pair("mixtral")
    point = model.record(random_ids(7))
    frozen = next(branch.mixture for block in point.blocks for branch in block[1].branches)

    def biased(expert):
        output = replace(expert.mlp.output, bias=torch.randn(point.embedding.shape[1], dtype=torch.float64))
        return replace(expert, mlp=replace(expert.mlp, output=output))

    frozen = replace(frozen, experts=tuple(map(biased, frozen.experts)))
    at = ReadoutRows((6, 3), False, torch.device("cpu"))
    g = torch.randn(len(at.positions), point.embedding.shape[1], dtype=torch.float64)
    shares = BiasShares.none_yet(2, g)
    frozen.pull(g, at, shares)
    read = (g * frozen.carry(torch.zeros_like(point.embedding), with_bias=True)[at.positions]).sum(1)
    assert_close(shares.total, torch.stack([read[:7].sum(), read[7:].sum()]), rtol=1e-12, atol=1e-12)


def test_without_the_bias_no_intercepts_are_kept():
    _, model = make_pair("gpt2")
    kept, left_out = (model.record(random_ids(7), bias=bias) for bias in (True, False))
    assert left_out.nbytes < kept.nbytes
    assert_close(left_out.hidden, kept.hidden, rtol=0, atol=0)
    assert all(block[1].branches[0].mlp.offset is None for block in left_out.blocks)


@pytest.mark.parametrize("variant", ["opt-post-norm", *FAMILIES])
def test_second_derivatives_of_the_frozen_network_are_zero(variant):
    _, model = make_pair(variant)
    point = model.record(random_ids(8))

    def final(x):
        *_, hidden = point.carry(x, with_bias=True)
        return hidden.sum(0)

    x, step = point.embedding, torch.randn_like(point.embedding)
    _, first = torch.autograd.functional.jvp(final, x, step)
    _, moved = torch.autograd.functional.jvp(final, x + 3 * step, step)
    assert first.abs().max() > 1e-3
    assert_close(moved, first, rtol=1e-12, atol=1e-12)
