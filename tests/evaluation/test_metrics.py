"""Alignment and agreement: by hand, by all orders, against scipy."""

from itertools import permutations
from math import comb

import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose

from decomp.evaluation.agreement import agreement
from decomp.evaluation.alignment import alignment, random_alignment
from decomp.tables.intervals import bootstrap_interval, estimates


def mask(*values):
    return np.array(values, dtype=bool)


@pytest.mark.parametrize(
    ("scores", "evidence", "expected"),
    [
        ([0.5, 0.25, 0.25], mask(1, 0, 0), (0.5, 0, 1)),
        ([0.5, -0.25, 0.25], mask(0, 1, 0), (-0.25, 2, 1 / 3)),
        ([3, 1, 2, -4], mask(0, 1, 1, 0), (0.3, 1, 1 / 2)),
        ([1, 1], mask(1, 0), (0.5, 0.5, 3 / 4)),
        ([0, 0, 0], mask(1, 1, 1), (0, 0, 1)),
        ([2, 1, 1, 1], mask(0, 1, 0, 0), (0.2, 2, (1 / 2 + 1 / 3 + 1 / 4) / 3)),
    ],
)
def test_alignment_by_hand(scores, evidence, expected):
    assert_allclose(alignment(np.array(scores, dtype=float), evidence), expected, rtol=1e-12)


def first_rank(order, evidence):
    return next(rank for rank, token in enumerate(order) if evidence[token])


@pytest.mark.parametrize(
    ("scores", "evidence"),
    [
        ([1, 1, 1, 1, 1], mask(1, 1, 0, 0, 0)),
        ([2, 1, 1, 1, 1, 0], mask(0, 1, 0, 1, 0, 1)),
        ([1, 1, 0, 0], mask(0, 0, 1, 0)),
    ],
)
def test_ties_are_the_mean_over_all_orders(scores, evidence):
    orders = [o for o in permutations(range(len(scores))) if sorted(scores, reverse=True) == [scores[k] for k in o]]
    probes = np.mean([first_rank(o, evidence) for o in orders])
    reciprocal = np.mean([1 / (first_rank(o, evidence) + 1) for o in orders])
    assert_allclose(alignment(np.array(scores, dtype=float), evidence)[1:], (probes, reciprocal), rtol=1e-12)


def test_random_is_what_random_scores_give():
    evidence, generator = mask(0, 1, 0, 0, 1, 0, 0), np.random.default_rng(0)
    drawn = np.mean([alignment(generator.random(7), evidence) for _ in range(20000)], axis=0)
    assert_allclose(random_alignment(evidence), drawn, rtol=0.02)
    assert comb(7, 2) == 21
    assert_allclose(random_alignment(evidence)[:2], (2 / 7, 5 / 3), rtol=1e-12)


def test_better_scores_align_better():
    evidence = mask(0, 0, 1, 0)
    weak, strong = (alignment(np.array(s), evidence) for s in ([0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.7, 0.1]))
    assert strong.dot_product > weak.dot_product
    assert strong.probes_needed < weak.probes_needed
    assert strong.reciprocal_rank > weak.reciprocal_rank


def test_alignment_without_evidence():
    with pytest.raises(ValueError, match="at least one token that is evidence"):
        alignment(np.ones(2), mask(0, 0))


def test_agreement_by_hand():
    assert_allclose(agreement(np.array([1.0, 2, 3]), np.array([10.0, 20, 300])), (1, 1))
    assert_allclose(agreement(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])), (-1, -1))
    # Σ d² = 2, so 1 − 6·2/(4·15); five of six pairs concordant, one not.
    assert_allclose(agreement(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])), (0.8, 4 / 6))


def test_spearman_is_pearson_of_ranks():
    first, second = np.random.default_rng(0).integers(0, 4, size=(2, 12)).astype(float)
    ranks = [scipy.stats.rankdata(x) for x in (first, second)]
    assert_allclose(agreement(first, second).spearman, np.corrcoef(*ranks)[0, 1], rtol=1e-12)


@pytest.mark.parametrize(("first", "second"), [([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0])])
def test_no_ranks_to_compare(first, second):
    assert agreement(np.array(first), np.array(second)) is None


def test_agreement_without_scipy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.stats", None)
    with pytest.raises(ValueError, match=r"need scipy: install tokenwise-decomposition\[evaluate\]"):
        agreement(np.arange(3.0), np.arange(3.0))


def test_bootstrap_interval():
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap_interval(values, seed=0)
    assert low < values.mean() < high
    assert_allclose(high - low, 2 * 1.96 * values.std() / 20, rtol=0.1)
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=1000, method="percentile").confidence_interval
    assert_allclose((low, high), theirs, atol=0.02)
    assert bootstrap_interval(values, seed=0) == (low, high)
    assert bootstrap_interval(values, seed=1) != (low, high)
    assert bootstrap_interval(np.full(5, 2.0), seed=3) == (2, 2)


def test_estimates():
    rows = list(estimates({("a", "x"): [1.0, 1.0], ("b", "x"): [0.0, 1.0, 2.0]}, seed=4))
    assert rows[0] == ("a", "x", 2, 1.0, 1.0, 1.0, 4)
    assert rows[1] == ("b", "x", 3, 1.0, *bootstrap_interval(np.arange(3.0), 4), 4)
