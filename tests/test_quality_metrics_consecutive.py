"""What users have in a row, against hand counts, a shuffle, and one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.quality.metrics.consecutive import consecutive_pairs, consecutive_share
from sidlake.quality.metrics.sessions import Sessions


def test_shares_of_three_pairs_match_the_hand_count():
    codes_NL = np.array([[0, 0], [0, 1], [1, 0], [0, 1]])
    pairs = np.array([[0, 1], [1, 3], [2, 0], [2, 2]])  # shared levels 1, 2, 0; the last is left out
    first, second = consecutive_share(codes_NL, [2, 2], pairs)
    assert (first.share, second.share) == (2 / 3, 1 / 3)
    # firsts 0, 1, 2, seconds 1, 3, 0: of 9 pairings, 0-0 and 1-1 are one item; of the others those of firsts 0 and 1 share level 0
    assert (first.shuffled_share, second.shuffled_share) == (4 / 7, 1 / 7)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_shuffled_share_is_that_of_all_pairings_one_by_one(seed):
    rng = np.random.default_rng(seed)
    codes_NL, pairs = rng.integers(0, 3, (12, 3)), rng.integers(0, 12, (15, 2))
    pairs[0] = [0, 1]
    kept = [(a, b) for a, b in pairs.tolist() if a != b]
    pairings = [(a, b) for a, _ in kept for _, b in kept if a != b]
    for depth, found in enumerate(consecutive_share(codes_NL, (3, 3, 3), pairs), start=1):
        prefix = [tuple(row[:depth]) for row in codes_NL.tolist()]
        assert found.share == pytest.approx(np.mean([prefix[a] == prefix[b] for a, b in kept]))
        if pairings:
            assert found.shuffled_share == pytest.approx(np.mean([prefix[a] == prefix[b] for a, b in pairings]))
        else:
            assert np.isnan(found.shuffled_share)


def test_shuffled_pairs_have_the_shuffled_share():
    rng = np.random.default_rng(0)
    codes_NL, first_P = rng.integers(0, 4, (500, 2)), rng.integers(0, 500, 40_000)
    second_P = (first_P + rng.integers(1, 3, 40_000)) % 500
    dealt = np.stack([first_P, rng.permutation(second_P)], axis=1)
    expected = consecutive_share(codes_NL, (4, 4), np.stack([first_P, second_P], axis=1))
    for ours, shuffled in zip(expected, consecutive_share(codes_NL, (4, 4), dealt), strict=True):
        assert ours.shuffled_share == pytest.approx(shuffled.share, abs=0.01)


def test_pairs_follow_each_other_within_a_session_and_end_with_the_target():
    sessions = Sessions(
        items_flat=np.array([4, 2, 2, -1, 5, 7], dtype=np.int64),
        offsets=np.array([0, 5, 5, 6]),
        targets=np.array([6, 1, -1]),
    )
    assert consecutive_pairs(sessions).tolist() == [[4, 2], [5, 6]]


def test_shares_never_rise_with_depth():
    rng = np.random.default_rng(1)
    found = consecutive_share(rng.integers(0, 3, (50, 4)), (3,) * 4, rng.integers(0, 50, (200, 2)))
    assert [f.share for f in found] == sorted((f.share for f in found), reverse=True)
    assert found[0].share > found[-1].share


def test_repeats_alone_are_refused():
    with pytest.raises(ValueError, match="none of 1 pairs"):
        consecutive_share(np.array([[0], [1]]), [2], np.array([[1, 1]]))


@pytest.mark.parametrize("pairs", [[[0, 2]], [[-1, 0]], [[0, 1, 1]]])
def test_rows_outside_the_codes_are_refused(pairs):
    with pytest.raises(ValueError, match="rows 0 to 1"):
        consecutive_share(np.array([[0], [1]]), [2], np.array(pairs))
