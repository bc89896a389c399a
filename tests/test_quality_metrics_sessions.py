from __future__ import annotations

import numpy as np
import pytest

from sidlake.quality.metrics.sessions import Sessions


def sessions(items: list[int], offsets: list[int], targets: list[int]) -> Sessions:
    return Sessions(items_flat=np.array(items, np.int64), offsets=np.array(offsets, np.int64), targets=np.array(targets, np.int64))


def test_scorable_sessions_have_a_known_item_and_a_known_target():
    assert sessions([1, -1, -1, 2, 3], [0, 2, 3, 4, 4, 5], [5, 6, -1, 7, 8]).num_scorable == 2


def test_session_of_item_repeats_each_session_for_its_items():
    assert sessions([4, 5, 6], [0, 2, 2, 3], [0, 0, 0]).session_of_item.tolist() == [0, 0, 2]


def test_no_sessions_at_all_is_allowed():
    assert sessions([], [0], []).num_scorable == 0


@pytest.mark.parametrize(
    ("items", "offsets", "targets", "message"),
    [
        ([1, 2], [0, 2], [1, 1], "one entry more"),
        ([1, 2], [0, 1], [1], "from 0 to 2"),
        ([1, 2], [1, 2], [1], "from 0 to 2"),
        ([1, 2], [0, 2, 1, 2], [1, 1, 1], "without falling"),
        ([1, -2], [0, 2], [1], "-2"),
        ([1], [0, 1], [-3], "-3"),
    ],
)
def test_broken_sessions_are_refused(items, offsets, targets, message):
    with pytest.raises(ValueError, match=message):
        sessions(items, offsets, targets)


def test_arrays_of_another_type_are_refused():
    with pytest.raises(ValueError, match="targets must be a one-dimensional int64"):
        Sessions(items_flat=np.array([1]), offsets=np.array([0, 1]), targets=np.array([1], dtype=np.int32))
