from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sidlake.quality.metrics.collision import collision_stats, gini, group_sizes

BEAUTY = Path(__file__).resolve().parents[2] / "shared" / "data" / "beauty" / "sids.parquet"
codes_strategy = hnp.arrays(np.int32, st.tuples(st.integers(1, 40), st.integers(1, 4)), elements=st.integers(0, 2))
counts_strategy = st.lists(st.integers(1, 1000), min_size=1, max_size=50)


def beauty_codes(method: str) -> np.ndarray:
    if not BEAUTY.exists():
        pytest.skip("../shared/data/beauty is absent")
    rows = duckdb.execute("select codes from read_parquet(?) where method = ? order by item_id", [str(BEAUTY), method]).fetchall()
    return np.array([codes for (codes,) in rows], dtype=np.int32)


def test_stats_of_six_items_on_three_sids_match_the_hand_count():
    codes_NL = np.array([[0, 1], [0, 1], [0, 1], [0, 2], [0, 2], [1, 1]])
    stats = collision_stats(codes_NL)
    assert (stats.num_items, stats.num_unique, stats.largest_group) == (6, 3, 3)
    assert stats.collision_rate == pytest.approx(0.5)
    assert stats.uniquely_identified_share == pytest.approx(1 / 6)
    assert stats.group_size_histogram == ((1, 1), (2, 1), (3, 1))


def test_collision_stats_refuse_an_empty_catalogue():
    with pytest.raises(ValueError, match="0 items"):
        collision_stats(np.zeros((0, 3), dtype=np.int32))


def test_codes_must_be_two_dimensional():
    with pytest.raises(ValueError, match="shape"):
        group_sizes(np.array([1, 2, 3]))


@given(codes_strategy)
@settings(max_examples=60, deadline=None)
def test_group_sizes_agree_with_counting_one_by_one(codes_NL):
    counted: dict[tuple[int, ...], int] = {}
    for row in codes_NL.tolist():
        counted[tuple(row)] = counted.get(tuple(row), 0) + 1
    assert group_sizes(codes_NL).tolist() == [counted[key] for key in sorted(counted)]


@given(codes_strategy, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_collision_stats_ignore_the_order_of_rows(codes_NL, seed):
    shuffled = np.random.default_rng(seed).permutation(codes_NL, axis=0)
    assert collision_stats(shuffled) == collision_stats(codes_NL)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([3, 2, 1, 1, 1], 0.25), ([1, 1, 1], 0.0), ([7], 0.0), ([1, 3], 0.25), ([0, 0, 1, 3], 0.25)],
)
def test_gini_matches_hand_computed_values(counts, expected):
    assert gini(counts) == pytest.approx(expected, abs=1e-12)


@given(counts_strategy)
@settings(max_examples=100, deadline=None)
def test_gini_is_half_the_relative_mean_difference(counts):
    x = np.array(counts, dtype=np.float64)
    oracle = np.abs(x[:, None] - x[None, :]).mean() / (2 * x.mean())
    assert gini(counts) == pytest.approx(oracle, abs=1e-9)
    assert 0.0 <= gini(counts) < 1.0


@given(counts_strategy, st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_gini_does_not_depend_on_scale(counts, factor):
    assert gini([factor * count for count in counts]) == pytest.approx(gini(counts), abs=1e-9)


@pytest.mark.parametrize("counts", [[], [0, 0], [-1, 2], [float("nan")], [[1, 2]]])
def test_gini_refuses_counts_that_are_not_counts(counts):
    with pytest.raises(ValueError, match=r"counts|occupied"):
        gini(counts)


@pytest.mark.parametrize(("method", "expected"), [("letter_tiger", 0.0011), ("collision_rkmeans_native", 0.1209)])
def test_gini_of_published_beauty_codes_matches_to_four_digits(method, expected):
    assert round(gini(group_sizes(beauty_codes(method))), 4) == expected


def test_unique_sids_of_beauty_agree_with_duckdb():
    query = "select count(distinct codes) from read_parquet(?) where method = 'collision_rkmeans_native'"
    codes_NL = beauty_codes("collision_rkmeans_native")
    assert duckdb.execute(query, [str(BEAUTY)]).fetchone() == (collision_stats(codes_NL).num_unique,)
