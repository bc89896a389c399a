"""Neighbourhoods before and after, against hand counts, sets, the definition summed to infinity, and SciPy."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from sidlake.quality.metrics.neighbourhoods import (
    jaccard,
    near_pairs,
    neighbourhood_preservation,
    prefix_spearman,
    random_pairs,
    rank_biased_overlap,
    shared_levels,
)

seeds = st.integers(0, 2**32 - 1)


def lists(seed, num=12, k=6):
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(num)[:k] for _ in range(5)]), np.stack([rng.permutation(num)[:k] for _ in range(5)])


def test_overlap_of_two_short_lists_matches_the_hand_count():
    # agreement at depths 1, 2, 3: 0, 1/2, 2/3; p = 0.5: 2/3 · 1/8 + (1/2 · 1/4 + 2/3 · 1/8)
    overlap = rank_biased_overlap(np.array([[1, 2, 3]]), np.array([[2, 9, 3]]), persistence=0.5)
    assert overlap[0] == pytest.approx(2 / 3 / 8 + 1 / 8 + 2 / 3 / 8)
    assert jaccard(np.array([[1, 2, 3]]), np.array([[2, 9, 3]]))[0] == 0.5


@given(seeds, st.floats(0.05, 0.95))
@settings(max_examples=40, deadline=None)
def test_overlap_agrees_with_its_series_when_agreement_stays_as_it_ends(seed, persistence):
    one_QK, other_QK = lists(seed)
    for one, other, found in zip(one_QK, other_QK, rank_biased_overlap(one_QK, other_QK, persistence=persistence), strict=True):
        agreement = [len(set(one[:depth]) & set(other[:depth])) / depth for depth in range(1, 7)]
        series = [agreement[min(depth, 6) - 1] * persistence ** (depth - 1) for depth in range(1, 800)]
        assert found == pytest.approx((1 - persistence) * sum(series), abs=1e-9)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_jaccard_agrees_with_scikit_learn(seed):
    one_QK, other_QK = lists(seed)
    expected = [jaccard_score(np.isin(np.arange(12), a), np.isin(np.arange(12), b)) for a, b in zip(one_QK, other_QK, strict=True)]
    assert jaccard(one_QK, other_QK).tolist() == pytest.approx(expected)


def test_equal_lists_overlap_wholly_and_disjoint_ones_not_at_all():
    one = np.array([[3, 1, 4], [0, 1, 2]])
    assert rank_biased_overlap(one, one).tolist() == pytest.approx([1.0, 1.0])
    assert rank_biased_overlap(one, one + 10).tolist() == [0.0, 0.0]


def test_early_agreement_counts_more():
    target = np.array([[1, 2, 3, 4]])
    early, late = rank_biased_overlap(target, np.array([[1, 2, 8, 9]])), rank_biased_overlap(target, np.array([[8, 9, 1, 2]]))
    assert early[0] > late[0]


def test_preservation_agrees_with_scikit_learns_neighbours():
    rng = np.random.default_rng(0)
    before_ND = rng.normal(size=(300, 8))
    after_ND = before_ND + 0.5 * rng.normal(size=(300, 8))
    before_NK, after_NK = (
        NearestNeighbors(n_neighbors=11, metric="cosine").fit(x).kneighbors(return_distance=False, n_neighbors=10)
        for x in (before_ND, after_ND)
    )
    found = neighbourhood_preservation(before_ND, after_ND, k=10)
    assert (found.num_queries, found.k) == (300, 10)
    assert found.jaccard == pytest.approx(jaccard(before_NK, after_NK).mean())
    assert found.rank_biased_overlap == pytest.approx(rank_biased_overlap(before_NK, after_NK).mean())


def test_unchanged_vectors_keep_every_neighbour_and_unrelated_ones_as_many_as_chance():
    rng = np.random.default_rng(1)
    x_ND = rng.normal(size=(400, 6)).astype(np.float32)
    same, other = (neighbourhood_preservation(x_ND, y, num_queries=200) for y in (3 * x_ND, rng.normal(size=(400, 6))))
    assert (same.jaccard, same.rank_biased_overlap, same.num_queries) == (1.0, pytest.approx(1.0), 200)
    assert other.jaccard == pytest.approx(other.random_jaccard, abs=0.01)


def test_items_of_one_sid_come_in_the_order_of_their_vectors():
    x_ND = np.random.default_rng(2).normal(size=(50, 6)).astype(np.float32)
    found = neighbourhood_preservation(x_ND, np.ones_like(x_ND), k=5)
    assert (found.jaccard, found.rank_biased_overlap) == (1.0, pytest.approx(1.0))


def test_correlation_agrees_with_ranking_by_hand():
    x_ND = np.array([[1, 0], [1, 0.1], [0, 1], [1, 0.9]], dtype=np.float32)
    codes_NL = np.array([[0, 0], [0, 1], [1, 0], [0, 0]])
    pairs = np.array([[0, 1], [0, 2], [0, 3], [2, 3]])  # shared 1, 0, 2, 0; cosines .995, 0, .743, .669
    ranks = np.array([[4, 1, 3, 2], [3, 1.5, 4, 1.5]])
    assert prefix_spearman(x_ND, codes_NL, pairs) == pytest.approx(np.corrcoef(ranks)[0, 1])


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_correlation_agrees_with_scipy_on_whole_cosine_matrices(seed):
    rng = np.random.default_rng(seed)
    x_ND, codes_NL = rng.normal(size=(40, 5)).astype(np.float32), rng.integers(0, 2, (40, 3))
    pairs = random_pairs(40, 200, seed=seed)
    shared = [next((d for d in range(3) if codes_NL[a, d] != codes_NL[b, d]), 3) for a, b in pairs]
    cosine = cosine_similarity(x_ND.astype(np.float64))[pairs[:, 0], pairs[:, 1]]
    assert prefix_spearman(x_ND, codes_NL, pairs) == pytest.approx(scipy.stats.spearmanr(cosine, shared).statistic, abs=1e-6)
    assert shared_levels(codes_NL, pairs).tolist() == shared


def test_codes_of_clusters_correlate_and_dealt_codes_do_not():
    rng = np.random.default_rng(3)
    cluster_N = rng.integers(0, 8, 500)
    x_ND = rng.normal(size=(8, 6))[cluster_N] + 0.2 * rng.normal(size=(500, 6))
    pairs = near_pairs(x_ND, k=10, num_queries=100)
    assert pairs.shape == (2000, 2)
    assert prefix_spearman(x_ND, cluster_N[:, None], pairs) > 0.7
    assert abs(prefix_spearman(x_ND, rng.permutation(cluster_N)[:, None], pairs)) < 0.1


def test_pairs_that_all_share_alike_have_no_correlation():
    assert np.isnan(prefix_spearman(np.eye(3), np.zeros((3, 2), dtype=int), random_pairs(3, 5)))


def test_random_pairs_are_of_different_items_and_the_same_each_time():
    pairs = random_pairs(5, 2000)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert np.bincount(pairs[:, 0] * 5 + pairs[:, 1])[1:].max() < 2000 / 20 * 1.5
    np.testing.assert_array_equal(pairs, random_pairs(5, 2000))
    assert (near_pairs(np.eye(4), k=9)[:, 0] != near_pairs(np.eye(4), k=9)[:, 1]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: neighbourhood_preservation(np.eye(3), np.eye(4)), "as many rows"),
        (lambda: jaccard(np.array([[1]]), np.array([[1, 2]])), "both have shape"),
        (lambda: rank_biased_overlap(np.array([[1]]), np.array([[1]]), persistence=1.0), "persistence"),
        (lambda: prefix_spearman(np.eye(3), np.zeros((3, 1)), np.array([[0, 3]])), "rows 0 to 3"),
        (lambda: prefix_spearman(np.eye(3), np.zeros((2, 1)), np.array([[0, 1]])), "a SID per vector"),
        (lambda: random_pairs(1, 5), "at least 2 items"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
