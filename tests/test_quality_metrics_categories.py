"""Purity and information of prefixes about categories, against hand counts and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from sidlake.quality.metrics.categories import category_match

seeds = st.integers(0, 2**32 - 1)


def drawn(seed, num_items=60):
    rng = np.random.default_rng(seed)
    category_N = rng.integers(0, 4, num_items)
    codes_NL = np.stack([(category_N + (rng.random(num_items) < 0.3)) % 4, rng.integers(0, 3, num_items)], axis=1)
    return codes_NL.astype(np.int32), 7 * category_N


def labels_of(codes_NL, depth):
    return np.unique(codes_NL[:, :depth], axis=0, return_inverse=True)[1].ravel()


def test_purity_and_information_of_four_items_match_the_hand_count():
    # prefix 0 holds categories 8, 8, 9, and prefix 1 holds 9: H(prefix) = H(3/4), H(category) = ln 2, H(both) = 1.5 ln 2
    first, second = category_match(np.array([[0, 0], [0, 0], [0, 1], [1, 0]]), [2, 2], np.array([8, 8, 9, 9]))
    of_prefix = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    shared = of_prefix + np.log(2) - 1.5 * np.log(2)
    assert first.purity == 0.75
    assert first.nmi == pytest.approx(shared / ((of_prefix + np.log(2)) / 2))
    assert (second.level, second.purity) == (1, 1.0)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_every_depth_agrees_with_scikit_learn(seed):
    codes_NL, category_N = drawn(seed)
    for depth, found in enumerate(category_match(codes_NL, (4, 3), category_N), start=1):
        labels_N = labels_of(codes_NL, depth)
        assert found.nmi == pytest.approx(normalized_mutual_info_score(category_N, labels_N), abs=1e-9)
        assert found.purity == pytest.approx(contingency_matrix(category_N, labels_N).max(axis=0).sum() / 60)


def test_codes_dealt_at_random_match_no_better_than_categories_dealt_at_random():
    rng = np.random.default_rng(0)
    codes_NL, category_N = rng.integers(0, 8, (4000, 2)), rng.integers(0, 5, 4000)
    for found in category_match(codes_NL, (8, 8), category_N):
        assert found.purity == pytest.approx(found.dealt_purity, abs=0.02)
        assert found.nmi == pytest.approx(found.dealt_nmi, abs=0.01)
    codes_NL, category_N = drawn(0, 4000)
    first, _ = category_match(codes_NL, (4, 3), category_N)
    assert (first.purity, first.dealt_purity) == pytest.approx((0.7, 0.25), abs=0.03)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_purity_never_falls_with_depth(seed):
    first, second = category_match(*[drawn(seed)[0], (4, 3), drawn(seed)[1]])
    assert first.purity <= second.purity


def test_items_without_a_category_are_left_out():
    codes_NL, category_N = drawn(3)
    some_N = np.where(np.arange(60) % 3 == 0, -1, category_N)
    assert category_match(codes_NL, (4, 3), some_N) == category_match(codes_NL[some_N >= 0], (4, 3), some_N[some_N >= 0])


def test_a_single_category_says_nothing():
    (found,) = category_match(np.array([[0], [0]]), [1], np.array([3, 3]))
    assert (found.purity, found.nmi) == (1.0, 0.0)


def test_no_category_at_all_is_refused():
    with pytest.raises(ValueError, match="none of 2 items"):
        category_match(np.array([[0], [1]]), [2], np.array([-1, -1]))


def test_a_category_per_item_is_asked_for():
    with pytest.raises(ValueError, match="one category per item"):
        category_match(np.array([[0], [1]]), [2], np.array([1]))
