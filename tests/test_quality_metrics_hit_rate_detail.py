"""Behind the hit rate: intervals against SciPy's bootstrap, buckets by hand, and which sessions count."""

import numpy as np
import pytest
import scipy.stats

from sidlake.quality.metrics.hit_rate import SessionHits, embedding_hit_rate, hit_rate_of, session_hits
from sidlake.quality.metrics.hit_rate_detail import bootstrap_interval, hit_rate_by_popularity, hit_rate_difference, popularity
from sidlake.quality.metrics.neighbours import ExactSearch
from sidlake.quality.metrics.sessions import Sessions


def sessions_of(pairs):
    return Sessions(
        items_flat=np.array([item for items, _ in pairs for item in items], dtype=np.int64),
        offsets=np.cumsum([0, *(len(items) for items, _ in pairs)], dtype=np.int64),
        targets=np.array([target for _, target in pairs], dtype=np.int64),
    )


def hits_of(hits, num_items=10):
    hits_S = np.array(hits, dtype=bool)
    return SessionHits(
        sessions_S=np.arange(len(hits_S)),
        hits_S=hits_S,
        chances_S=np.ones(len(hits_S), dtype=np.int64),
        num_left_out=0,
        num_items=num_items,
        k=3,
        tie_rate=0.0,
    )


def drawn(seed, share, num):
    return np.random.default_rng(seed).random(num) < share


@pytest.mark.parametrize(("share", "num"), [(0.3, 400), (0.02, 300), (0.95, 50)])
def test_the_bootstrap_interval_is_that_of_resampled_sessions(share, num):
    hits = drawn(0, share, num)
    theirs = scipy.stats.bootstrap((hits.astype(float),), np.mean, method="percentile", n_resamples=9999, rng=1).confidence_interval
    assert bootstrap_interval(hits_of(hits)) == pytest.approx((theirs.low, theirs.high), abs=1.1 / num)


def test_the_bootstrap_interval_holds_the_true_share_as_often_as_it_says():
    held = [low <= 0.3 <= high for low, high in (bootstrap_interval(hits_of(drawn(s, 0.3, 500)), seed=s) for s in range(300))]
    assert 0.91 <= np.mean(held) <= 0.99


def test_a_wider_level_gives_a_wider_interval_and_the_seed_the_same_one():
    hits = hits_of(drawn(0, 0.4, 200))
    low, high = bootstrap_interval(hits)
    wider_low, wider_high = bootstrap_interval(hits, level=0.99)
    assert wider_low < low < high < wider_high
    assert bootstrap_interval(hits) == (low, high)


def test_a_paired_difference_is_that_of_resampled_pairs():
    ours, theirs = drawn(0, 0.5, 600), drawn(0, 0.5, 600)
    theirs[:60] &= drawn(2, 0.5, 60)
    found = hit_rate_difference(hits_of(ours), hits_of(theirs))
    sampled = scipy.stats.bootstrap(
        (ours.astype(float) - theirs.astype(float),), np.mean, method="percentile", n_resamples=9999, rng=1
    ).confidence_interval
    assert found.value == pytest.approx(ours.mean() - theirs.mean())
    assert (found.ci_low, found.ci_high) == pytest.approx((sampled.low, sampled.high), abs=2.1 / 600)
    unpaired = bootstrap_interval(hits_of(ours))
    assert found.ci_high - found.ci_low < (unpaired[1] - unpaired[0]) / 2


def test_hit_rates_of_other_sessions_are_not_paired():
    with pytest.raises(ValueError, match="cannot be paired: 2 and 3"):
        hit_rate_difference(hits_of([1, 0]), hits_of([1, 0, 1]))


def test_buckets_of_eight_items_match_the_hand_count():
    popularity_N = np.array([0, 0, 1, 1, 2, 3, 5, 9])
    sessions = sessions_of([([7], target) for target in (0, 1, 2, 3, 4, 5, 6, 7)])
    hits = hits_of([0, 1, 1, 0, 1, 0, 1, 1], num_items=8)
    cold, rare, popular = hit_rate_by_popularity(hits, sessions, popularity_N, num_buckets=2)
    # six items were interacted with: 1, 1, 2 | 3, 5, 9
    assert [(b.least, b.most, b.num_items, b.num_sessions) for b in (cold, rare, popular)] == [
        (0, 0, 2, 2),
        (1, 2, 3, 3),
        (3, 9, 3, 3),
    ]
    assert [b.value for b in (cold, rare, popular)] == pytest.approx([1 / 2, 2 / 3, 2 / 3])
    assert [b.is_cold for b in (cold, rare, popular)] == [True, False, False]
    assert rare.random_floor == pytest.approx(3 / 7)
    assert (rare.ci_low, rare.ci_high) == pytest.approx(
        tuple(scipy.stats.binomtest(2, 3).proportion_ci(method="wilson")), abs=1e-12
    )


def test_buckets_make_up_the_whole():
    rng = np.random.default_rng(0)
    sessions = sessions_of([(rng.integers(0, 50, 3).tolist(), int(rng.integers(-1, 50))) for _ in range(400)])
    hits = session_hits(ExactSearch(rng.normal(size=(50, 4)).astype(np.float32)), sessions, num_items=50, k=5)
    counts_N = np.where(np.arange(50) < 5, 0, rng.zipf(1.5, 50))
    buckets = hit_rate_by_popularity(hits, sessions, counts_N)
    assert sum(b.num_sessions for b in buckets) == len(hits.hits_S)
    assert sum(b.num_items for b in buckets) == 50
    assert sum(b.value * b.num_sessions for b in buckets if b.num_sessions) == pytest.approx(hits.hits_S.sum())


def test_equally_popular_items_share_a_bucket_and_an_empty_one_has_no_value():
    buckets = hit_rate_by_popularity(hits_of([1, 0], 4), sessions_of([([0], 1), ([0], 2)]), np.array([3, 3, 3, 3]))
    assert [b.num_items for b in buckets] == [0, 0, 0, 0, 4]
    assert np.isnan(buckets[0].value)
    assert buckets[-1].value == 0.5


def test_popularity_counts_histories_and_no_targets():
    assert popularity(sessions_of([([1, 1, 2], 0), ([-1, 2], 3)]), 4).tolist() == [0, 2, 2, 0]


def test_a_target_outside_the_gallery_is_left_out_or_missed():
    vectors_ND = np.array([[1, 0], [1, 0.1], [0, 1]], dtype=np.float32)
    sessions = sessions_of([([0], 1), ([0], -1), ([-1], 1), ([], 1)])
    left_out = embedding_hit_rate(vectors_ND, sessions, k=1)
    missed = embedding_hit_rate(vectors_ND, sessions, k=1, count_missing_targets=True)
    assert (left_out.value, left_out.num_sessions, left_out.num_left_out) == (1.0, 1, 3)
    assert (missed.value, missed.num_sessions, missed.num_left_out) == (0.5, 2, 2)
    assert missed.random_floor == left_out.random_floor / 2  # what is not there is not found by chance either


def test_sessions_whose_targets_are_all_elsewhere_score_only_as_misses():
    sessions = sessions_of([([0], -1)])
    assert embedding_hit_rate(np.eye(3), sessions, count_missing_targets=True).value == 0.0
    with pytest.raises(ValueError, match="none of 1 sessions"):
        embedding_hit_rate(np.eye(3), sessions_of([([-1], 0)]), count_missing_targets=True)


def test_bounded_histories_give_long_sessions_no_more_chances():
    vectors_ND = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], dtype=np.float32)
    sessions = sessions_of([([0, 2], 1), ([2], 3)])
    assert embedding_hit_rate(vectors_ND, sessions, k=1).value == 1.0
    bounded = embedding_hit_rate(vectors_ND, sessions, k=1, max_items=1)
    assert (bounded.value, bounded.random_floor) == (0.5, pytest.approx(1 / 3))
    with pytest.raises(ValueError, match="num must be >= 1"):
        sessions.last_items(0)


def test_hits_add_up_to_the_hit_rate():
    rng = np.random.default_rng(4)
    vectors_ND = rng.normal(size=(60, 4)).astype(np.float32)
    sessions = sessions_of([(rng.integers(-1, 60, 4).tolist(), int(rng.integers(-1, 60))) for _ in range(100)])
    hits = session_hits(ExactSearch(vectors_ND), sessions, num_items=60, k=5)
    assert hit_rate_of(hits) == embedding_hit_rate(vectors_ND, sessions, k=5)
    assert hits.hits_S.mean() == hit_rate_of(hits).value


@pytest.mark.parametrize("bad", [{"level": 1.0}, {"num_resamples": 0}])
def test_bad_resampling_is_refused(bad):
    with pytest.raises(ValueError, match="num_resamples be >= 1"):
        bootstrap_interval(hits_of([1, 0]), **bad)
