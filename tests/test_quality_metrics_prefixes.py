"""Prefixes as integers: in the order of the SIDs, the same in one word or many, refused outside their level."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.quality.metrics.prefixes import observed_widths, pack, prefix_groups, prefix_starts, sort_words

WIDTHS = [(3, 3, 3), (2**20, 2**30, 2**30, 3), (1, 2**62, 1, 2), (256,) * 9]


def drawn(widths, seed, num_items=30):
    rng = np.random.default_rng(seed)
    low, high = rng.integers(0, 2, (num_items, len(widths))), rng.integers(0, 2, (num_items, len(widths)))
    return np.where(
        high,
        np.array(widths, dtype=np.int64) - 1 - np.minimum(low, np.array(widths, dtype=np.int64) - 1),
        np.minimum(low, np.array(widths, dtype=np.int64) - 1),
    )


def test_two_codes_share_a_word_the_first_above_the_second():
    assert pack(np.array([[1, 2], [0, 7], [1, 0]]), [2, 8]).tolist() == [[8 + 2, 7, 8]]


@pytest.mark.parametrize(("widths", "num_words"), [((256,) * 8, 1), ((256,) * 9, 2), ((2**16,) * 4, 1), ((2**33, 2**33), 2)])
def test_levels_fill_words_without_straddling(widths, num_words):
    assert len(pack(np.zeros((2, len(widths)), dtype=np.int64), widths)) == num_words


@given(st.sampled_from(WIDTHS), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_words_sort_as_their_codes_do(widths, seed):
    codes_NL = drawn(widths, seed)
    ascending = np.array(sorted(codes_NL.tolist()))
    np.testing.assert_array_equal(sort_words(pack(codes_NL, widths)), pack(ascending, widths))


@given(st.sampled_from(WIDTHS), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_groups_and_starts_agree_with_comparing_prefixes_one_by_one(widths, seed):
    codes_NL = drawn(widths, seed)
    prefixes = [sorted({tuple(row[:depth]) for row in codes_NL.tolist()}) for depth in range(1, len(widths) + 1)]
    groups = [found.tolist() for found in prefix_groups(codes_NL, widths)]
    assert groups == [[known.index(tuple(row[: depth + 1])) for row in codes_NL.tolist()] for depth, known in enumerate(prefixes)]
    starts = prefix_starts(sort_words(pack(codes_NL, widths)), widths)
    assert [int(found.sum()) for found in starts] == [len(known) for known in prefixes]


@pytest.mark.parametrize("codes", [[[0, 2]], [[-1, 0]], [[3, 0]]])
def test_a_code_outside_its_level_is_refused(codes):
    with pytest.raises(ValueError, match="allowed"):
        pack(np.array(codes), [3, 2])


@pytest.mark.parametrize("widths", [[3], [3, 2, 2], []])
def test_a_width_per_level_is_asked_for(widths):
    with pytest.raises(ValueError, match="one column per width"):
        pack(np.array([[0, 0]]), widths)


def test_a_width_of_nothing_is_refused():
    with pytest.raises(ValueError, match="widths must lie"):
        pack(np.array([[0, 0]]), [2, 0])


def test_observed_widths_hold_the_codes_of_all_tables():
    assert observed_widths(np.array([[0, 7]]), np.array([[4, 1], [2, 2]])) == (5, 8)
