"""Prices that make clusters equally large at the least total cost."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from sidlake.tokenizers.numeric.balanced_prices import annealed_prices, balanced_prices, equal_sizes, margin, stepped_prices


def costs_of(n, k, seed):
    rng = np.random.default_rng(seed)
    x, centres = rng.normal(size=(n, 3)) * rng.choice([0.1, 1, 4], size=(n, 1)), rng.normal(size=(k, 3))
    return np.square(x[:, None] - centres).sum(axis=2)


def total(costs, codes):
    return costs[np.arange(len(costs)), codes].sum()


@pytest.mark.parametrize(("n", "k", "seed"), [(40, 4, 0), (61, 7, 1), (200, 16, 2), (33, 33, 3), (50, 1, 4)])
def test_the_assignment_costs_what_the_best_one_costs(n, k, seed):
    costs, sizes = costs_of(n, k, seed), equal_sizes(n, k)
    _, codes = balanced_prices(costs, sizes)
    rows, columns = linear_sum_assignment(np.repeat(costs, sizes, axis=1))
    assert np.array_equal(np.bincount(codes, minlength=k), sizes)
    assert total(costs, codes) == pytest.approx(np.repeat(costs, sizes, axis=1)[rows, columns].sum(), rel=1e-12)


def test_of_six_rows_and_three_clusters_every_other_assignment_costs_more():
    costs, sizes = costs_of(6, 3, 5), equal_sizes(6, 3)
    best = total(costs, balanced_prices(costs, sizes)[1])
    all_of_them = [
        codes for codes in itertools.product(range(3), repeat=6) if np.array_equal(np.bincount(codes, minlength=3), sizes)
    ]
    assert len(all_of_them) == 90
    assert min(total(costs, np.array(codes)) for codes in all_of_them) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(5))
def test_prices_alone_say_where_each_row_belongs_with_room_for_rounding(seed):
    costs, sizes = costs_of(300, 20, seed), equal_sizes(300, 20)
    prices, codes = balanced_prices(costs, sizes)
    two = np.sort(costs + prices, axis=1)[:, :2]
    assert np.array_equal((costs + prices).argmin(axis=1), codes)
    assert (two[:, 1] - two[:, 0]).min() > 1e-7


def test_a_cluster_that_is_nearest_to_no_row_is_filled():
    costs = np.concatenate([costs_of(60, 5, 0), np.full((60, 1), 1e4) + np.arange(60)[:, None]], axis=1)
    _, codes = balanced_prices(costs, equal_sizes(60, 6))
    assert np.bincount(codes).tolist() == [10] * 6


def test_where_sizes_differ_the_first_clusters_are_larger():
    assert equal_sizes(11, 4).tolist() == [3, 3, 3, 2]


def test_sizes_come_out_equal_whatever_the_scales():
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(6, 2)) * 100, [200, 100, 50, 25, 13, 12], axis=0) + 0.01 * rng.normal(size=(400, 2))
    costs = np.square(x[:, None] - x[rng.choice(400, 8, replace=False)]).sum(axis=2)
    prices, _ = balanced_prices(costs, equal_sizes(400, 8))
    assert np.bincount(costs.argmin(axis=1), minlength=8).max() > 100
    assert np.bincount((costs + prices).argmin(axis=1), minlength=8).tolist() == [50] * 8


def test_annealing_comes_near():
    costs, sizes = costs_of(4000, 10, 0), equal_sizes(4000, 10)
    prices = annealed_prices(costs, sizes, coldest=0.02, cooling=2.0, rounds=5)
    before, after = (np.abs(np.bincount((costs + p).argmin(axis=1), minlength=10) - 400).sum() for p in (0, prices))
    assert after < before / 10


def test_steps_that_see_nothing_but_sizes_come_near_too():
    costs, sizes = costs_of(4000, 10, 0), equal_sizes(4000, 10)
    prices = stepped_prices(lambda at: (costs + at).argmin(axis=1), sizes, np.zeros(10), scale=margin(costs), steps=40)
    counts = np.bincount((costs + prices).argmin(axis=1), minlength=10)
    assert np.bincount(costs.argmin(axis=1), minlength=10).max() > 800
    assert counts.max() < 440
    assert counts.min() > 360


def test_copies_of_one_row_end_in_finite_time_and_stay_together():
    prices, _ = balanced_prices(np.ones((500, 8)), equal_sizes(500, 8))
    assert len(set((np.ones((500, 8)) + prices).argmin(axis=1).tolist())) == 1
