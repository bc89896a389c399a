from __future__ import annotations

import numpy as np
import pytest

from sidlake.generative.judging.evaluation import ndcg_at_k, ranks_of, recall_at_k

RANKED = np.array([[4, 2, 9], [1, 3, 5], [7, 8, -1], [6, 0, 2]])
TARGET = np.array([4, 5, 9, 0])  # ranks 1, 3, absent, 2


def test_ranks_count_from_one_and_are_zero_where_absent():
    assert ranks_of(TARGET, RANKED).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize(("k", "expected"), [(1, 0.25), (2, 0.5), (3, 0.75), (10, 0.75)])
def test_recall_is_the_share_of_targets_within_k(k, expected):
    assert recall_at_k(ranks_of(TARGET, RANKED), k=k) == expected


@pytest.mark.parametrize(("k", "expected"), [(1, 0.25), (2, (1 + 0.6309297536) / 4), (3, (1 + 0.6309297536 + 0.5) / 4)])
def test_ndcg_discounts_by_the_logarithm_of_the_rank(k, expected):
    assert ndcg_at_k(ranks_of(TARGET, RANKED), k=k) == pytest.approx(expected)


def test_an_absent_recommendation_is_never_a_hit():
    with pytest.raises(ValueError, match="every user needs a held-out item"):
        ranks_of(np.array([-1]), np.array([[3, -1]]))


def test_misaligned_users_are_refused():
    with pytest.raises(ValueError, match="must be"):
        ranks_of(np.array([1, 2]), np.array([[1]]))


@pytest.mark.parametrize(("ranks", "k"), [([], 1), ([1], 0)])
def test_no_users_or_no_places_is_refused(ranks, k):
    with pytest.raises(ValueError, match="k must be at least 1"):
        recall_at_k(np.array(ranks, dtype=np.int64), k=k)
