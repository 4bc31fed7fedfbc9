"""The formulas of tuning, checked by numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tuning.run import interleaved, summary
from tuning.sweep import (
    MARGIN,
    as_truth,
    best_bound,
    closeness,
    design_effect,
    lower_bound,
    needed_queries,
    scanned_truth,
    share_reached,
)


def test_a_single_miss_gives_the_binomial_bound():
    # 1 miss in 100: the 95 % bound of the share of misses is 0.0466 (Clopper and Pearson).
    assert lower_bound(np.ones(10), k=10) == pytest.approx(1 - 0.0466, abs=1e-4)
    one_missed = np.array([0.9] + [1.0] * 9)
    assert lower_bound(one_missed, k=10) == pytest.approx(1 - 0.0466, abs=4e-4)


def test_misses_that_come_together_widen_the_bound():
    apart = np.array([0.9] * 10 + [1.0] * 90)
    together = np.array([0.0] + [1.0] * 99)
    assert apart.mean() == together.mean() == pytest.approx(0.99)
    # variance of a mean of 100 with one 0: 0.01 / 100; of 1 000 independent: 0.99 * 0.01 / 1000
    assert design_effect(together, k=10) == pytest.approx(0.01 / 100 / (0.0099 / 1000), rel=1e-6)
    assert design_effect(apart, k=10) == 1.0
    # ten times fewer trials: 1 miss in 100 instead of 10 in 1 000
    assert lower_bound(together, k=10) == pytest.approx(1 - 0.0466, abs=4e-4)
    assert lower_bound(apart, k=10) > lower_bound(together, k=10) + 0.02


def test_the_bound_keeps_its_promise_where_a_t_bound_does_not():
    random = np.random.default_rng(0)
    shares = random.beta(0.05, 4, size=(400, 200))  # a few hard queries have most of the misses
    recalls = 1 - random.binomial(10, shares) / 10
    true = 1 - 0.05 / 4.05
    kept = np.mean([lower_bound(row, k=10) <= true for row in recalls])
    spread = recalls.std(axis=1, ddof=1) / math.sqrt(200)
    assert kept >= 0.91
    assert kept > np.mean(recalls.mean(axis=1) - 1.653 * spread <= true) + 0.02


def test_too_few_queries_are_known_beforehand():
    assert needed_queries(0.99, k=10) == 48
    assert best_bound(48, k=10) >= 0.99 > best_bound(46, k=10)


def test_the_share_of_served_queries_counts_from_nine_of_ten():
    assert share_reached(np.array([1.0, 0.9, 0.8, 0.0])) == 0.5


def test_closeness_follows_the_similarity():
    queries = np.array([[3, 4]], np.float32)
    vectors = np.array([[6, 8], [4, 3], [-3, -4]], np.float32)
    assert closeness(queries, vectors, "cosine")[0] == pytest.approx([1, 0.96, -1])
    assert closeness(queries, vectors, "dot_product")[0] == pytest.approx([50, 24, -25])
    assert closeness(queries, vectors, "max_inner_product")[0] == pytest.approx([50, 24, -25])
    assert closeness(queries, vectors, "l2_norm")[0] == pytest.approx([-25, -2, -100])


def test_distances_of_far_away_vectors_do_not_cancel_out():
    far = np.full((1, 4), 1e4, np.float32)
    near = far + np.array([[1, 0, 0, 0]], np.float32)
    assert closeness(far, near, "l2_norm")[0, 0] == pytest.approx(-1, rel=1e-6)


def vectors(*angles: float) -> np.ndarray:
    """Return unit vectors of two dims at angles in degrees."""
    radians = np.radians(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_the_truth_of_blocks_is_that_of_all_vectors():
    random = np.random.default_rng(1)
    everything = random.normal(size=(9_000, 8)).astype(np.float32)
    queries = random.normal(size=(5, 8)).astype(np.float32)
    ids = [str(n) for n in range(9_000)]
    blocks = [(ids[n : n + 700], everything[n : n + 700]) for n in range(0, 9_000, 700)]
    truth = scanned_truth(blocks, queries, k=10, similarity="l2_norm")
    assert truth.documents == 9_000
    for query, right in zip(queries, truth.right, strict=True):
        nearest = np.argsort(((everything - query) ** 2).sum(axis=1))[:10]
        assert right == {str(n) for n in nearest}
    assert not truth.open_ties.any()


def test_a_tie_with_the_last_neighbour_is_right_as_well():
    blocks = [(list("abcd"), vectors(0, 10, -10, 50))]
    truth = scanned_truth(blocks, vectors(0), k=2, similarity="cosine")
    assert truth.right == ({"a", "b", "c"},)


def test_rounding_breaks_no_tie_between_vectors_at_right_angles():
    a, b = 1e-7, 4e-7  # what float32 makes of the same cosine of 0
    truth = as_truth(
        np.array([["x", "y", "z"]], dtype=object),
        np.array([[b, a, -0.1]]),
        k=1,
        documents=3,
        similarity="cosine",
    )
    assert truth.right == ({"x", "y"},)


def test_fewer_documents_than_k_are_all_right():
    truth = scanned_truth([(["a", "b"], vectors(0, 90))], vectors(5), k=10, similarity="cosine")
    assert (truth.wanted, truth.right) == (2, (frozenset("ab"),))


def test_no_documents_are_no_neighbours():
    assert scanned_truth([], vectors(5), k=10, similarity="cosine").wanted == 0


def test_ties_beyond_what_is_kept_are_left_open():
    ids = [str(n) for n in range(100)]
    truth = scanned_truth([(ids, vectors(*[30] * 100))], vectors(0), k=10, similarity="cosine")
    assert truth.open_ties.all()
    assert len(truth.right[0]) == 10 + MARGIN


def test_queries_without_any_hit_have_nothing_right():
    truth = as_truth(np.full((1, 3), None), np.full((1, 3), -np.inf), k=2, documents=5, similarity="cosine")
    assert truth.right == (frozenset(),)


def test_percentiles_lie_between_the_nearest_ranks():
    assert summary([4, 1, 3, 2]).p50_ms == 2.5
    assert summary([1, 2, 3, 4, 5]).p95_ms == pytest.approx(4.8)
    assert summary([7]).p95_ms == 7


def test_a_99th_percentile_needs_a_thousand_samples():
    assert summary([1.0] * 999).p99_ms is None
    assert summary([1.0] * 1000).p99_ms == 1.0


def test_settings_are_timed_in_turn_and_the_warm_up_is_not_counted():
    sent = []
    ticks = iter(range(10_000))
    taken = interleaved(
        sent.append, {"a": ["a0", "a1"], "b": ["b0"]}, rounds=4, warm_up=2, clock=lambda: next(ticks)
    )
    assert {key: len(each) for key, each in taken.items()} == {"a": 4, "b": 4}
    assert set(taken["a"]) == {1000.0}  # one tick for each request
    rounds = [{request[0] for request in sent[n : n + 2]} for n in range(0, 12, 2)]
    assert rounds == [{"a", "b"}] * 6
    assert [request for request in sent if request[0] == "a"] == ["a0", "a1"] * 3
