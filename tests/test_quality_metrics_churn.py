"""Churn between releases: hand counts, every relabelling tried, and renamed codes that are no churn."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.quality.metrics.churn import ChurnCounter, CodeOverlap, churn

seeds = st.integers(0, 2**32 - 1)


def test_churn_of_five_items_matches_the_hand_count():
    before = np.array([[0, 0], [0, 1], [0, 1], [1, 0], [1, 0]])
    after = np.array([[1, 0], [1, 0], [0, 1], [0, 0], [0, 1]])
    first, second = churn(before, after, [2, 2], [2, 2])
    assert (first.changed, second.changed) == (0.8, 0.4)
    # level 0 swaps its codes: only item 2 changed; level 1 keeps its own: items 1 and 4 did
    assert (first.changed_relabelled, second.changed_relabelled) == (0.2, 0.4)
    assert (first.prefix_changed, second.prefix_changed) == (0.8, 0.8)
    assert (first.prefix_changed_relabelled, second.prefix_changed_relabelled) == (0.2, 0.6)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_no_relabelling_keeps_more_items(seed):
    rng = np.random.default_rng(seed)
    before, after = rng.integers(0, 4, (25, 2)), rng.integers(0, 4, (25, 2))
    for level, found in enumerate(churn(before, after, [4, 4], [4, 4])):
        least = min(np.mean(np.array(names)[before[:, level]] != after[:, level]) for names in permutations(range(4)))
        assert found.changed_relabelled == pytest.approx(least)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_renamed_codes_are_churn_only_until_they_are_relabelled(seed):
    rng = np.random.default_rng(seed)
    before = rng.integers(0, 8, (200, 3))
    after = np.stack([np.roll(np.arange(8), 1 + level)[before[:, level]] for level in range(3)], axis=1)
    for found in churn(before, after, [8] * 3, [8] * 3):
        assert (found.changed, found.prefix_changed) == (1.0, 1.0)
        assert (found.changed_relabelled, found.prefix_changed_relabelled) == (0.0, 0.0)


def test_codes_without_a_new_name_count_as_changed():
    before, after = np.array([[0], [0], [1], [2]]), np.array([[0], [0], [1], [1]])
    (found,) = churn(before, after, [3], [2])
    assert (found.changed, found.changed_relabelled) == (0.25, 0.25)
    (back,) = churn(after, before, [2], [3])
    assert back.changed_relabelled == 0.25


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_batches_change_nothing(seed):
    rng = np.random.default_rng(seed)
    before, after = rng.integers(0, 5, (40, 3)), rng.integers(0, 6, (40, 3))
    overlap = CodeOverlap([5] * 3, [6] * 3)
    cuts = np.sort(rng.integers(0, 41, 3))
    for old, new in zip(np.split(before, cuts), np.split(after, cuts), strict=True):
        overlap.update(old, new)
    counter = ChurnCounter(overlap.best_relabelling())
    for old, new in zip(np.split(before, cuts), np.split(after, cuts), strict=True):
        counter.update(old, new)
    assert counter.finalize() == churn(before, after, [5] * 3, [6] * 3)


def test_releases_of_different_depth_are_refused():
    with pytest.raises(ValueError, match="as many levels"):
        CodeOverlap([2, 2], [2])
    with pytest.raises(ValueError, match="both have shape"):
        churn(np.array([[0]]), np.array([[0], [1]]), [2], [2])


def test_a_code_outside_its_level_is_refused():
    with pytest.raises(ValueError, match="level 0"):
        churn(np.array([[2]]), np.array([[0]]), [2], [2])


def test_no_common_item_is_refused():
    with pytest.raises(ValueError, match="0 items"):
        churn(np.zeros((0, 2), dtype=np.int32), np.zeros((0, 2), dtype=np.int32), [2, 2], [2, 2])
