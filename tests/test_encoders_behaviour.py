import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from sidlake.encoders.behaviour import BehaviourConfig, behaviour_id, fit_behaviour

SMALL = BehaviourConfig(dim=4, window=2, min_count=1)


def clustered_events(num_clusters=6, per_cluster=12, num_users=120, length=10, seed=0):
    """Return (users, items, cluster per item): each user buys from one cluster, one purchase in ten from anywhere."""
    rng = np.random.default_rng(seed)
    num_items = num_clusters * per_cluster
    cluster = rng.integers(num_clusters, size=(num_users, 1)).repeat(length, axis=1)
    items = cluster * per_cluster + rng.integers(per_cluster, size=cluster.shape)
    stray = rng.random(items.shape) < 0.1
    items[stray] = rng.integers(num_items, size=stray.sum())
    return np.repeat(np.arange(num_users), length), items.ravel(), np.arange(num_items) // per_cluster


def naive_ppmi(users, items, num_items, config):
    counts = np.zeros((num_items, num_items))
    frequent = np.bincount(items, minlength=num_items) >= config.min_count
    for i in range(len(items)):
        for j in range(i + 1, min(i + config.window + 1, len(items))):
            a, b = items[i], items[j]
            if users[i] == users[j] and a != b and frequent[a] and frequent[b]:
                counts[a, b] += 1
                counts[b, a] += 1
    margin = counts.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        pmi = np.log(counts * counts.sum() / np.outer(margin, margin)) - np.log(config.negatives)
    return np.where(counts > 0, np.maximum(pmi, 0), 0)


def test_two_items_bought_together_have_the_hand_computed_value():
    # One pair: n_ab = n_ba = 1, margins 1, total 2: PMI = log(1 * 2 / 1) = log 2. Both singular values are log 2.
    fitted = fit_behaviour(np.array([7, 7]), np.array([0, 2]), 3, SMALL)
    np.testing.assert_allclose(fitted.singular_values, [np.log(2)] * 2)
    assert fitted.present_I.tolist() == [True, False, True]
    np.testing.assert_allclose(np.linalg.norm(fitted.vectors_ID, axis=1), [np.sqrt(np.log(2)), 0, np.sqrt(np.log(2))], rtol=1e-6)


@pytest.mark.parametrize("dim", [5, 40])
@pytest.mark.parametrize("negatives", [1.0, 2.0])
def test_vectors_are_the_dense_svd_up_to_sign(dim, negatives):
    users, items, _ = clustered_events()
    config = BehaviourConfig(dim=dim, window=3, min_count=2, negatives=negatives)
    left, values, _ = np.linalg.svd(naive_ppmi(users, items, 72, config))
    fitted = fit_behaviour(users, items, 72, config)
    np.testing.assert_allclose(fitted.singular_values, values[:dim], rtol=1e-9)
    expected = left[:, :dim] * np.sqrt(values[:dim])
    np.testing.assert_allclose(np.abs(fitted.vectors_ID), np.abs(expected), atol=1e-5)


def test_items_bought_together_lie_nearest():
    users, items, cluster = clustered_events()
    vectors = fit_behaviour(users, items, 72, BehaviourConfig(dim=16, min_count=2)).vectors_ID
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T - 2 * np.eye(72)
    assert (cluster[cosine.argmax(axis=1)] == cluster).mean() == 1.0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_of_users_changes_no_bit(seed):
    users, items, _ = clustered_events()
    rng = np.random.default_rng(seed)
    renamed = rng.permutation(users.max() + 1)[users]
    mixed = np.argsort(rng.random(len(users)))
    mixed = mixed[np.argsort(users[mixed], kind="stable")]  # users in order, but ...
    mixed = np.lexsort((np.arange(len(users)), rng.permutation(users.max() + 1)[users]))  # ... whole users shuffled
    expected = fit_behaviour(users, items, 72, BehaviourConfig(dim=8, min_count=1))
    got = fit_behaviour(renamed[mixed], items[mixed], 72, BehaviourConfig(dim=8, min_count=1))
    assert np.array_equal(got.vectors_ID, expected.vectors_ID)


def test_interleaved_users_give_the_same_bits_as_grouped_ones():
    users, items, _ = clustered_events()
    interleaved = np.argsort(np.tile(np.arange(10), 120), kind="stable")
    expected = fit_behaviour(users, items, 72, SMALL)
    assert np.array_equal(fit_behaviour(users[interleaved], items[interleaved], 72, SMALL).vectors_ID, expected.vectors_ID)


@pytest.mark.parametrize("dim", [30, 80])  # of 150 items: the sparse solver and the dense one
def test_number_of_threads_changes_no_bit(dim):
    items = np.random.default_rng(0).integers(150, size=1500)
    fits = []
    for limit in (1, 2):
        with threadpool_limits(limits=limit):
            fits.append(fit_behaviour(np.arange(1500) // 10, items, 150, BehaviourConfig(dim=dim, min_count=1)))
    assert np.array_equal(fits[0].vectors_ID, fits[1].vectors_ID)
    assert np.array_equal(fits[0].singular_values, fits[1].singular_values)


def test_pairs_never_cross_users_or_the_window():
    users = np.array([0, 0, 0, 1])
    fitted = fit_behaviour(users, np.array([0, 1, 2, 3]), 4, BehaviourConfig(dim=4, window=1, min_count=1))
    assert fitted.present_I.tolist() == [True, True, True, False]


def test_rare_items_have_no_vector():
    users = np.repeat(np.arange(5), 2)
    items = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 2])
    fitted = fit_behaviour(users, items, 3, BehaviourConfig(dim=2, min_count=2))
    assert fitted.present_I.tolist() == [True, True, False]
    assert not fitted.vectors_ID[2].any()


def test_directions_that_do_not_exist_are_zero_columns():
    fitted = fit_behaviour(np.array([0, 0]), np.array([0, 1]), 2, BehaviourConfig(dim=6, min_count=1))
    assert fitted.vectors_ID.shape == (2, 6)
    assert not fitted.vectors_ID[:, 2:].any()


def test_no_events_leave_every_item_without_a_vector():
    nothing = np.array([], dtype=np.int64)
    fitted = fit_behaviour(nothing, nothing, 3, SMALL)
    assert not fitted.present_I.any()
    assert fitted.vectors_ID.shape == (3, 4)
    assert not fitted.vectors_ID.any()


@pytest.mark.parametrize(
    ("users", "items", "num_items", "message"),
    [
        ([0, 0], [0, 3], 3, r"0\.\.2"),
        ([0, 0], [-1, 0], 3, r"0\.\.2"),
        ([0], [0, 1], 3, "one length"),
        ([0.5, 1.0], [0, 1], 3, "whole numbers"),
        ([0, 0], [0, 1], 0, "num_items"),
    ],
)
def test_bad_events_are_a_value_error(users, items, num_items, message):
    with pytest.raises(ValueError, match=message):
        fit_behaviour(np.array(users), np.array(items), num_items, SMALL)


@pytest.mark.parametrize("change", [{"dim": 0}, {"window": 0}, {"min_count": 0}, {"negatives": 0.0}, {"seed": -1}])
def test_config_out_of_range_is_a_value_error(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        BehaviourConfig(**change)


def test_id_changes_with_config_and_interactions():
    ids = {behaviour_id(BehaviourConfig(seed=seed), digest) for seed in (0, 1) for digest in ("a", "b")}
    assert len(ids) == 4


def test_what_everybody_touches_is_no_more_than_ten_times_as_long_as_most(monkeypatch):
    # items drawn by Zipf's law: of 8,000, a few are touched by all and most by two users
    rng = np.random.default_rng(3)
    users, items = rng.integers(0, 2666, 80_000), np.minimum(rng.zipf(1.3, 80_000), 8000) - 1
    config = BehaviourConfig(dim=8, min_count=1)
    vectors = fit_behaviour(users, items, 8000, config).vectors_ID
    monkeypatch.setattr("sidlake.encoders.behaviour._LONGEST", np.inf)
    before = fit_behaviour(users, items, 8000, config).vectors_ID
    lengths, unbounded = np.linalg.norm(vectors, axis=1), np.linalg.norm(before, axis=1)
    usual = np.median(unbounded[unbounded > 0])
    assert unbounded.max() > 10.5 * usual
    assert lengths.max() == pytest.approx(10 * usual, rel=1e-5)
    others = unbounded < 9.9 * usual
    assert np.array_equal(vectors[others], before[others])
    turned = vectors[~others] / lengths[~others, None] - before[~others] / unbounded[~others, None]
    assert np.abs(turned).max() < 1e-6  # shortened, not turned
