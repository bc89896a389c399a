"""Features of SIDs: a function of an item's codes alone, so what holds of codes within a generation holds of them."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sidlake.tokenizers.sid_features import Subwords, prefix_ngrams

WIDTHS = (8, 8, 8)
CODES = arrays.arrays(np.int32, st.tuples(st.integers(1, 40), st.just(3)), elements=st.integers(0, 7))


def catalogue(num=600, seed=0):
    """Codes of which the second mostly follows from the first, as siblings' do."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(8, size=(num, 3)).astype(np.int32)
    codes[: num * 3 // 4, 1] = codes[: num * 3 // 4, 0]
    return codes


@given(CODES)
def test_items_share_the_rows_of_the_prefixes_that_they_share_and_no_others(codes):
    rows = prefix_ngrams(codes, num_rows=2**40)
    for level in range(3):
        alike = (codes[:, None, : level + 1] == codes[None, :, : level + 1]).all(axis=2)
        assert np.array_equal(rows[:, None, level] == rows[None, :, level], alike)


@given(CODES, st.integers(1, 1000))
@settings(max_examples=30)
def test_an_items_rows_stay_whatever_other_items_come_and_go(codes, num_rows):
    whole = prefix_ngrams(codes, num_rows=num_rows)
    assert 0 <= whole.min() <= whole.max() < num_rows
    assert np.array_equal(prefix_ngrams(codes[::-2], num_rows=num_rows), whole[::-2])
    vocabulary = Subwords.fit(catalogue(), WIDTHS, num_merges=40)
    assert np.array_equal(vocabulary.encode(codes[::-2]), vocabulary.encode(codes)[::-2])


def test_prefixes_share_a_row_by_chance_alone():
    codes = np.stack(np.unravel_index(np.arange(4096), (16, 16, 16)), axis=1)
    used = np.bincount(prefix_ngrams(codes, num_rows=4096)[:, 2], minlength=4096)
    expected = 4096 * np.exp(-1) / np.array([1, 1, 2, 6])  # of 4,096 rows with 0, 1, 2, 3 of 4,096 prefixes: Poisson
    assert np.abs(np.bincount(used)[:4] - expected).max() < 4 * np.sqrt(expected.max())


def test_pieces_spell_each_sid_and_no_two_alike():
    codes = catalogue()
    vocabulary = Subwords.fit(codes, WIDTHS, num_merges=40)
    rows = vocabulary.encode(codes)
    assert len(np.unique(rows, axis=0)) == len(np.unique(codes, axis=0))
    assert 0 < rows.max() < vocabulary.num_rows == 24 + 40 + 1
    assert (np.diff((rows > 0).astype(int), axis=1) <= 0).all()  # padding only at the end


def test_what_often_stands_together_is_one_piece():
    codes = catalogue()
    pieces = (Subwords.fit(codes, WIDTHS, num_merges=8).encode(codes) > 0).sum(axis=1)
    assert pieces[:450].mean() == 2.0  # codes 0 and 1 that are the same, and code 2
    assert pieces[450:].mean() > 2.8


def test_counts_weigh_items_and_an_item_of_count_zero_is_still_spelled():
    codes, counts = catalogue(), np.zeros(600, np.int64)
    counts[450:] = 1
    pieces = (Subwords.fit(codes, WIDTHS, num_merges=8, counts_N=counts).encode(codes) > 0).sum(axis=1)
    assert pieces[:450].mean() > 2.5


def test_the_vocabulary_is_the_same_for_any_order_of_items_and_after_storing():
    codes = catalogue()
    vocabulary = Subwords.fit(codes, WIDTHS, num_merges=40)
    shuffled = Subwords.fit(codes[np.random.default_rng(1).permutation(600)], WIDTHS, num_merges=40)
    stored = Subwords.from_json(vocabulary.to_json())
    assert vocabulary.to_json() == shuffled.to_json() == stored.to_json()
    assert np.array_equal(stored.encode(codes), vocabulary.encode(codes))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: prefix_ngrams([[0.5]], num_rows=4), "codes must be whole numbers from 0 on"),
        (lambda: prefix_ngrams([[-1]], num_rows=4), "codes must be whole numbers from 0 on"),
        (lambda: prefix_ngrams([[1]], num_rows=0), "num_rows must be at least 1, got 0"),
        (lambda: Subwords.fit([[9, 0, 0]], WIDTHS, num_merges=1), "codes lie in [0, 9], the widths are (8, 8, 8)"),
        (
            lambda: Subwords.fit([[0, 0, 0]], WIDTHS, num_merges=1, counts_N=[1, 1]),
            "counts must be whole numbers from 0 on, one for each",
        ),
        (lambda: Subwords.fit([[0, 0]], (2**20, 2**20), num_merges=1), "subwords spell at most 1048576 codes over all levels"),
        (lambda: Subwords.fit([[0, 0, 0]], WIDTHS, num_merges=-1), "num_merges must be a whole number from 0 on, got -1"),
    ],
)
def test_what_cannot_be_a_feature_is_named(act, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        act()
