from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.quality.metrics.hit_rate import embedding_hit_rate, nearest_neighbours
from sidlake.quality.metrics.neighbours import _distinct_rows
from sidlake.quality.metrics.sessions import Sessions

BEAUTY = Path(__file__).resolve().parents[2] / "shared" / "data" / "beauty"
seeds = st.integers(0, 2**32 - 1)


def sessions(pairs: list[tuple[list[int], int]]) -> Sessions:
    items = [items for items, _ in pairs]
    return Sessions(
        items_flat=np.array([item for session in items for item in session], dtype=np.int64),
        offsets=np.cumsum([0, *(len(session) for session in items)], dtype=np.int64),
        targets=np.array([target for _, target in pairs], dtype=np.int64),
    )


def random_sessions(rng: np.random.Generator, num_items: int) -> list[tuple[list[int], int]]:
    """Return sessions with repeats, empty ones, and items and targets outside the gallery, the first one scorable."""
    drawn = [(rng.integers(-1, num_items, rng.integers(0, 6)).tolist(), int(rng.integers(-1, num_items))) for _ in range(25)]
    return [([0], 1), *drawn]


def brute_force_sets(vectors_ND: np.ndarray, tie_break_ND: np.ndarray | None, k: int) -> list[set[int]]:
    """Return each item's k nearest others, from float64 cosines of the different vectors, sorted by (score, raw score, row)."""

    def cosines(x_ND: np.ndarray) -> list[list[float]]:
        norms = np.linalg.norm(x_ND.astype(np.float64), axis=1, keepdims=True)
        unit_ND = x_ND.astype(np.float64) / np.where(norms > 0, norms, 1.0)
        return [[round(float(np.dot(a, b)), 10) for b in unit_ND] for a in unit_ND]

    scores = cosines(vectors_ND)
    raw = cosines(tie_break_ND) if tie_break_ND is not None else [[0.0] * len(vectors_ND)] * len(vectors_ND)
    everyone = range(len(vectors_ND))
    return [set(sorted((j for j in everyone if j != i), key=lambda j, i=i: (-scores[i][j], -raw[i][j], j))[:k]) for i in everyone]


def brute_force_hit_rate(sets: list[set[int]], pairs: list[tuple[list[int], int]]) -> tuple[float, int]:
    scored = [([i for i in items if i >= 0], target) for items, target in pairs if target >= 0]
    scored = [(items, target) for items, target in scored if items]
    return sum(target in set().union(*(sets[i] for i in items)) for items, target in scored) / len(scored), len(scored)


def tied_vectors(rng: np.random.Generator, num_items: int) -> np.ndarray:
    """Return vectors drawn from few prototypes, one of them zero, so that many rows are equal."""
    prototypes = rng.normal(size=(5, 3)).astype(np.float32)
    prototypes[0] = 0.0
    return prototypes[rng.integers(0, 5, num_items)]


def test_hits_and_misses_on_a_circle_match_the_hand_count():
    angles = np.deg2rad([0, 10, 30, 90, 180])
    vectors_ND = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    # nearest of 0, 1, 2, 3, 4 are 1, 0, 1, 2, 3
    result = embedding_hit_rate(vectors_ND, sessions([([0], 1), ([1], 2), ([3, 0], 2), ([4, 4], 0)]), k=1)
    assert (result.value, result.num_sessions, result.k) == (0.5, 4, 1)
    assert result.random_floor == pytest.approx((3 * 0.25 + (1 - 0.75**2)) / 4)
    assert result.standard_error == pytest.approx(0.25)
    assert result.tie_rate == 0.0


def test_wilson_interval_matches_the_textbook_value():
    vectors_ND = np.eye(3, dtype=np.float32) + np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=np.float32)
    result = embedding_hit_rate(vectors_ND, sessions([([0], 1)] * 8 + [([0], 2)] * 2), k=1)
    assert result.value == 0.8
    assert (result.ci_low, result.ci_high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@given(seeds, st.integers(1, 12), st.booleans(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_value_agrees_with_brute_force_sets_with_ties_and_zero_vectors(seed, k, with_ties, with_tie_break):
    rng = np.random.default_rng(seed)
    vectors_ND = tied_vectors(rng, 20) if with_ties else rng.normal(size=(20, 3)).astype(np.float32)
    tie_break_ND = rng.normal(size=(20, 4)).astype(np.float32) if with_tie_break else None
    pairs = random_sessions(rng, 20)
    result = embedding_hit_rate(vectors_ND, sessions(pairs), k=k, tie_break_ND=tie_break_ND, block_bytes=16 * 20 * 3)
    assert (result.value, result.num_sessions) == brute_force_hit_rate(brute_force_sets(vectors_ND, tie_break_ND, k), pairs)
    assert result.num_left_out == len(pairs) - result.num_sessions


@given(seeds, st.integers(1, 19), st.booleans())
@settings(max_examples=60, deadline=None)
def test_neighbours_agree_with_brute_force_sets(seed, k, with_tie_break):
    rng = np.random.default_rng(seed)
    vectors_ND = tied_vectors(rng, 20)
    tie_break_ND = rng.normal(size=(20, 4)).astype(np.float32) if with_tie_break else None
    neighbours = nearest_neighbours(vectors_ND, np.arange(20), k, tie_break_ND=tie_break_ND)
    assert [set(row) for row in neighbours.tolist()] == brute_force_sets(vectors_ND, tie_break_ND, k)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_value_does_not_depend_on_the_block_size(seed):
    rng = np.random.default_rng(seed)
    vectors_ND, pairs = tied_vectors(rng, 30), sessions(random_sessions(rng, 30))
    one_by_one = embedding_hit_rate(vectors_ND, pairs, k=4, block_bytes=1)
    assert embedding_hit_rate(vectors_ND, pairs, k=4) == one_by_one


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_value_does_not_depend_on_the_order_of_the_gallery(seed):
    rng = np.random.default_rng(seed)
    vectors_ND, raw_ND = tied_vectors(rng, 30), rng.normal(size=(30, 4)).astype(np.float32)
    pairs = random_sessions(rng, 30)
    order = rng.permutation(30)
    place = np.append(np.argsort(order), -1)
    moved = [([int(place[i]) for i in items], int(place[target])) for items, target in pairs]
    before = embedding_hit_rate(vectors_ND, sessions(pairs), k=4, tie_break_ND=raw_ND)
    assert embedding_hit_rate(vectors_ND[order], sessions(moved), k=4, tie_break_ND=raw_ND[order]) == before


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_more_neighbours_never_lower_the_value(seed):
    rng = np.random.default_rng(seed)
    vectors_ND, pairs = tied_vectors(rng, 20), sessions(random_sessions(rng, 20))
    values = [embedding_hit_rate(vectors_ND, pairs, k=k).value for k in (1, 3, 7, 19)]
    assert values == sorted(values)


def test_the_raw_vectors_decide_among_items_of_the_same_sid():
    vectors_ND = np.ones((4, 2), dtype=np.float32)
    raw_ND = np.array([[1, 0], [0, 1], [1, 2], [2, 1]], dtype=np.float32)
    by_row = embedding_hit_rate(vectors_ND, sessions([([0], 3)]), k=1)
    by_raw = embedding_hit_rate(vectors_ND, sessions([([0], 3)]), k=1, tie_break_ND=raw_ND)
    assert (by_row.value, by_raw.value) == (0.0, 1.0)
    assert (by_row.tie_rate, by_raw.tie_rate) == (1.0, 1.0)


def test_tie_rate_is_the_share_of_query_items_with_equal_scores_at_the_cut():
    vectors_ND = np.array([[1, 0], [1, 0.1], [0, 1], [0, 1]], dtype=np.float32)
    result = embedding_hit_rate(vectors_ND, sessions([([0], 1), ([1, 0], 2), ([2], 0)]), k=2)
    assert result.tie_rate == pytest.approx(2 / 3)  # rows 2 and 3 tie at places 2 and 3 of queries 0 and 1, not of 2


def test_equal_vectors_score_equally_whatever_their_place_in_the_matrix():
    rng = np.random.default_rng(7)
    vectors_ND = np.tile(rng.normal(size=(1, 384)).astype(np.float32), (1003, 1))
    vectors_ND[-1] = rng.normal(size=384)
    neighbours = nearest_neighbours(vectors_ND, np.array([1002]), 5)
    assert neighbours.tolist() == [[0, 1, 2, 3, 4]]


def test_an_item_never_finds_itself():
    vectors_ND = np.array([[1, 0], [0.9, 0.1], [0, 1]], dtype=np.float32)
    assert embedding_hit_rate(vectors_ND, sessions([([0], 0)]), k=2).value == 0.0
    assert embedding_hit_rate(vectors_ND, sessions([([0, 1], 0)]), k=1).value == 1.0


def test_k_beyond_the_gallery_finds_every_other_item():
    result = embedding_hit_rate(np.eye(3, dtype=np.float32), sessions([([0], 2), ([1], 0)]), k=30)
    assert (result.value, result.k, result.random_floor, result.tie_rate) == (1.0, 2, 1.0, 0.0)


def test_random_vectors_hit_about_as_often_as_the_floor_says():
    rng = np.random.default_rng(3)
    pairs = [(rng.integers(0, 400, 5).tolist(), int(rng.integers(0, 400))) for _ in range(4000)]
    result = embedding_hit_rate(rng.normal(size=(400, 16)).astype(np.float32), sessions(pairs), k=30)
    assert abs(result.value - result.random_floor) < 4 * result.standard_error


def test_huge_and_tiny_vectors_are_compared_by_direction():
    vectors_ND = np.array([[1e38, 1e38], [1e-38, 1.1e-38], [1, -1]], dtype=np.float32)
    assert nearest_neighbours(vectors_ND, np.array([0]), 1).tolist() == [[1]]


def test_sessions_without_anything_to_score_are_refused():
    with pytest.raises(ValueError, match="none of 2 sessions"):
        embedding_hit_rate(np.eye(3), sessions([([0], -1), ([-1], 2)]))


def test_vectors_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="2 values that are NaN or infinite"):
        embedding_hit_rate(np.array([[np.nan, 0.0], [np.inf, 1.0]]), sessions([([0], 1)]))


@pytest.mark.parametrize(
    ("pairs", "k", "message"), [([([0], 3)], 1, "row 3"), ([([5], 0)], 1, "row 5"), ([([0], 1)], 0, "k must be >= 1")]
)
def test_bad_arguments_are_refused(pairs, k, message):
    with pytest.raises(ValueError, match=message):
        embedding_hit_rate(np.eye(3), sessions(pairs), k=k)


def test_a_tie_break_of_another_length_is_refused():
    with pytest.raises(ValueError, match="tie_break must have shape"):
        embedding_hit_rate(np.eye(3), sessions([([0], 1)]), tie_break_ND=np.eye(4))


def test_behaviour_vectors_of_beauty_beat_chance_many_times_over():
    if not BEAUTY.exists():
        pytest.skip("../shared/data/beauty is absent")
    vectors_ND = np.load(BEAUTY / "cf_sasrec_32d.npy")
    histories = pl.read_parquet(BEAUTY / "sequences.parquet")["item_ids"].head(3000).to_list()
    result = embedding_hit_rate(vectors_ND, sessions([(items[-11:-1], items[-1]) for items in histories]))
    assert result.num_sessions == 3000
    assert result.value > 5 * result.random_floor


def test_the_floor_gives_no_chance_to_a_target_that_only_it_could_find():
    result = embedding_hit_rate(np.eye(5, dtype=np.float32), sessions([([0], 0), ([1, 2, 1], 1)]), k=1)
    assert result.random_floor == pytest.approx((0 + 1 / 4) / 2)


def test_negative_zero_is_zero_when_vectors_are_told_apart():
    first_U, group_N = _distinct_rows(np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, -1.0]], dtype=np.float32))
    assert len(first_U) == 2
    assert group_N[0] == group_N[1] != group_N[2]
