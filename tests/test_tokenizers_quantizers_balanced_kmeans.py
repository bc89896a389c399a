"""Balanced residual k-means: sizes equal to an item, by a rule that a row's code follows alone."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from sidlake.tokenizers.numeric.nearest import squared_distances_f64
from sidlake.tokenizers.quantizers.balanced_kmeans import BalancedKMeans, BalancedKMeansConfig
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig


def skewed(n=1200, d=12, seed=0):
    """Clusters of very different sizes, as catalogues have them."""
    rng = np.random.default_rng(seed)
    which = np.minimum(rng.geometric(0.15, n), 25)
    return (rng.normal(size=(26, d))[which] + 0.25 * rng.normal(size=(n, d))).astype(np.float32)


@pytest.mark.parametrize(("n", "widths"), [(1200, (32, 32)), (1003, (16, 25)), (64, (64,))])
def test_encode_gives_the_rows_of_the_fit_codes_whose_counts_differ_by_one_at_most(n, widths):
    x = skewed(n)
    model = BalancedKMeans.fit(x, BalancedKMeansConfig(widths=widths))
    codes = model.encode(x)
    for level, width in enumerate(widths):
        counts = np.bincount(codes[:, level], minlength=width)
        assert counts.max() - counts.min() <= 1
        assert counts.tolist() == sorted(counts.tolist(), reverse=True)
        assert np.array_equal(counts, model.counts[level])


def test_plain_residual_kmeans_is_far_from_balanced_on_the_same_rows():
    counts = ResidualKMeans.fit(skewed(), ResidualKMeansConfig(widths=(32,))).counts[0]
    assert counts.max() > 4 * counts.min()


def test_the_codes_are_the_best_equal_sized_assignment_to_the_centroids():
    x = skewed(240)
    model = BalancedKMeans.fit(x, BalancedKMeansConfig(widths=(12,)))
    costs = squared_distances_f64(x, model.centroids[0])
    columns = np.repeat(costs, model.counts[0], axis=1)
    rows, best = linear_sum_assignment(columns)
    assert costs[np.arange(240), model.encode(x)[:, 0]].sum() == pytest.approx(columns[rows, best].sum(), rel=1e-6)


def test_it_leaves_less_than_algorithm_1_of_the_paper():
    x, w = skewed(), 1200 // 24
    rng = np.random.default_rng(0)
    centroids = x[rng.choice(1200, 24, replace=False)].astype(np.float64)
    for _ in range(25):
        left, codes = np.arange(1200), np.zeros(1200, dtype=int)
        for cluster in range(24):
            near = np.argsort(np.square(x[left] - centroids[cluster]).sum(axis=1), kind="stable")[:w]
            codes[left[near]] = cluster
            left = np.delete(left, near)
        centroids = np.stack([x[codes == cluster].mean(axis=0) for cluster in range(24)])
    published = np.square(x - centroids[codes]).sum()
    model = BalancedKMeans.fit(x, BalancedKMeansConfig(widths=(24,)))
    assert np.square(x - model.decode(model.encode(x))).sum() < 0.97 * published


def test_new_rows_follow_the_same_rule():
    x = skewed(600)
    model = BalancedKMeans.fit(x, BalancedKMeansConfig(widths=(8,)))
    new = skewed(50, seed=9)
    priced = squared_distances_f64(new, model.centroids[0]) + np.square(model.offsets[0].astype(np.float64))
    assert np.array_equal(model.encode(new)[:, 0], priced.argmin(axis=1))


def test_decoding_leaves_prices_out():
    x = skewed(400)
    model = BalancedKMeans.fit(x, BalancedKMeansConfig(widths=(8, 8)))
    codes = model.encode(x)
    assert model.offsets[0].max() > 0
    assert np.array_equal(model.decode(codes), model.centroids[0][codes[:, 0]] + model.centroids[1][codes[:, 1]])


def test_each_level_lowers_the_reconstruction_error():
    x = skewed()
    model = BalancedKMeans.fit(x, BalancedKMeansConfig(widths=(24, 24, 24)))
    codes = model.encode(x)
    errors = [np.square(x - model.decode(codes, depth=depth)).sum() for depth in range(4)]
    assert errors[0] > errors[1] > errors[2] > errors[3] > 0


def test_beyond_exact_rows_sizes_are_near_equal():
    x = skewed(6000)
    model = BalancedKMeans.fit(x, BalancedKMeansConfig(widths=(20,), exact_rows=1000))
    counts = np.bincount(model.encode(x)[:, 0], minlength=20)
    assert np.array_equal(counts, model.counts[0])
    assert 0.8 * 300 < counts.min() <= counts.max() < 1.2 * 300


def test_copies_share_a_code_and_still_fit():
    model = BalancedKMeans.fit(np.full((60, 3), 0.5), BalancedKMeansConfig(widths=(8, 4)))
    codes = model.encode(np.full((60, 3), 0.5))
    assert len(np.unique(codes, axis=0)) == 1
    assert np.array_equal(model.decode(codes), np.full((60, 3), 0.5))


@pytest.mark.parametrize("fields", [{"max_iterations": 0}, {"exact_rows": 3}])
def test_a_config_out_of_range_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        BalancedKMeansConfig(widths=(4,), **fields)
