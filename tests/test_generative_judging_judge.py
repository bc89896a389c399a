from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sidlake.generative.judging.intervals import bootstrap_interval
from sidlake.generative.judging.judge import judge, popularity_groups
from sidlake.generative.judging.rankers import ranker_of, top_items
from sidlake.generative.sequences import Histories


def users_of(walks: list[list[int]], targets: list[int]) -> Histories:
    ends = np.cumsum([len(walk) for walk in walks])
    items = np.array([item for walk in walks for item in walk], dtype=np.int64)
    starts = ends - np.array([len(walk) for walk in walks])
    return Histories(pa.array([f"u{n}" for n in range(len(walks))]), items, starts, ends, np.array(targets))


NO_TARGETS = [-1, -1]


def test_both_judges_are_reported_and_differ_by_what_users_had():
    users = users_of([[0, 1], [2]], targets=[2, 0])
    scores = np.tile(np.array([5.0, 4.0, 3.0, 2.0], dtype=np.float32), (2, 1))
    groups = np.array([3, 2, 1, 0])
    figures = judge(ranker_of(lambda batch: scores[: len(batch)].copy()), users, groups)
    # kept: ranks 3 and 1; left out: ranks 1 and 1
    assert figures["recall@5"] == 1.0
    assert figures["ndcg@5"] == pytest.approx((0.5 + 1.0) / 2)
    assert figures["left_out_ndcg@5"] == 1.0
    assert figures["tail_ndcg@10"] == pytest.approx(0.5)
    assert figures["head_ndcg@20"] == 1.0
    assert "cold_recall@10" not in figures
    assert figures["coverage@10"] == 1.0
    assert figures["ndcg@10_low"] <= figures["ndcg@10"] <= figures["ndcg@10_high"]


def test_groups_split_training_interactions_in_thirds_and_cold_items_have_none():
    train = users_of([[0] * 6 + [1] * 3, [2] * 3 + [3] * 3 + [4] * 3], NO_TARGETS)
    assert popularity_groups(train, num_items=6).tolist() == [3, 2, 2, 1, 1, 0]


def test_items_of_others_in_the_flat_array_do_not_count_as_training():
    train = users_of([[0], [5]], NO_TARGETS).take(slice(0, 1))
    assert popularity_groups(train, num_items=6).tolist() == [3, 0, 0, 0, 0, 0]


@given(scores=arrays(np.float32, (4, 9), elements=st.sampled_from([-np.inf, 0.0, 1.0, 2.0])), k=st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_the_best_are_those_of_a_stable_sort(scores, k):
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    expected = np.where(np.take_along_axis(scores, order, axis=1) == -np.inf, -1, order)
    assert top_items(scores, k=k).tolist() == expected.tolist()


def test_the_interval_of_a_coin_is_that_of_the_binomial():
    low, high = bootstrap_interval(np.repeat([0.0, 1.0], 500), seed=0)
    assert low == pytest.approx(0.469, abs=0.01)
    assert high == pytest.approx(0.531, abs=0.01)
