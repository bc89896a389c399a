"""The price of uniqueness, by hand and by NumPy's quantiles."""

import numpy as np
import pytest

from sidlake.quality.metrics.uniqueness_cost import uniqueness_cost

RAW = np.array([[0, 0], [0, 0], [0, 0], [1, 1]])


def test_one_move_within_a_prefix_and_one_out_of_it_match_the_hand_count():
    found = uniqueness_cost(RAW, np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0.5, 1.5]))
    assert (found.moved_share, found.spill_rate, found.mean_cost) == (0.5, 0.25, 1.0)
    assert found.cost_quantiles == ((0.5, 1.0), (0.9, pytest.approx(1.4)), (0.99, pytest.approx(1.49)), (1.0, 1.5))


def test_a_prefix_that_changes_and_a_last_code_that_stays_is_a_spill():
    found = uniqueness_cost(RAW, np.array([[0, 0], [1, 0], [0, 1], [1, 1]]), np.array([2.0, -1.0]))
    assert (found.moved_share, found.spill_rate) == (0.5, 0.25)


def test_nothing_moved_costs_nothing():
    found = uniqueness_cost(RAW, RAW, np.zeros(0))
    assert (found.moved_share, found.spill_rate, found.mean_cost) == (0.0, 0.0, 0.0)
    assert {cost for _, cost in found.cost_quantiles} == {0.0}


def test_one_level_has_no_prefix_to_leave():
    assert uniqueness_cost(np.array([[0], [0]]), np.array([[0], [1]]), np.array([1.0])).spill_rate == 0.0


def test_a_cost_per_moved_item_is_asked_for():
    with pytest.raises(ValueError, match="0 items moved"):
        uniqueness_cost(RAW, RAW, np.array([1.0]))


def test_tables_of_different_items_are_refused():
    with pytest.raises(ValueError, match="the same items"):
        uniqueness_cost(RAW, RAW[:2], np.zeros(0))
