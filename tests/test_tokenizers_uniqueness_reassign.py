"""Capacity one, on cases small enough to resolve by hand, and beside a slow program that follows the rule word for word."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.errors import CapacityError
from sidlake.tokenizers.numeric.increments import Implicit
from sidlake.tokenizers.numeric.nearest import squared_distances_f64
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig
from sidlake.tokenizers.uniqueness import reassign as collisions
from sidlake.tokenizers.uniqueness.reassign import assign_unique

# Two levels on a line: prefixes at 0 and 100, leaves 0, 1, 3, 7 to the right of each.
CENTROIDS = (np.array([[0.0], [100.0]], dtype=np.float32), np.array([[0.0], [1.0], [3.0], [7.0]], dtype=np.float32))


def model_of(centroids):
    config = ResidualKMeansConfig(widths=tuple(len(level) for level in centroids))
    return ResidualKMeans(centroids, [np.ones(len(level), dtype=np.int64) for level in centroids], config)


def assign(values, occupied=None, hashes=None, centroids=CENTROIDS):
    x = np.asarray(values, dtype=np.float32)
    x = x[:, None] if x.ndim == 1 else x
    codes, norms = model_of(centroids).encode_with_norms(x)
    hashes = np.arange(len(x), dtype=np.uint64) if hashes is None else np.asarray(hashes, dtype=np.uint64)
    occupied = None if occupied is None else np.asarray(occupied, dtype=np.int32)
    return assign_unique(codes, norms, hashes, centroids=centroids, vectors_of=lambda rows: x[rows], occupied_codes_ML=occupied)


def test_the_nearest_item_keeps_the_codes_and_the_other_takes_the_nearest_free_one():
    result = assign([2.8, 3.1])
    assert result.codes_NL.tolist() == [[0, 1], [0, 2]]
    assert result.moved_N.tolist() == [True, False]
    assert result.spilled_N.tolist() == [False, False]
    assert np.allclose(result.move_cost_N, [1.8 - 0.2, 0.0], atol=1e-6)
    assert np.allclose(result.residual_norm_N, [1.8, 0.1], atol=1e-6)


def test_equal_distances_are_decided_by_hash_not_by_position():
    assert assign([3.0, 3.0], hashes=[2, 1]).codes_NL.tolist() == [[0, 1], [0, 2]]
    assert assign([3.0, 3.0], hashes=[1, 2]).codes_NL.tolist() == [[0, 2], [0, 1]]
    assert assign([3.0, 3.0], hashes=[1, 1]).codes_NL.tolist() == [[0, 2], [0, 1]]


def test_the_nearer_of_two_movers_chooses_first():
    assert assign([3.0, 3.2, 2.9]).codes_NL.tolist() == [[0, 2], [0, 0], [0, 1]]


def test_a_full_prefix_spills_to_the_nearest_free_sid_elsewhere():
    result = assign([0.0, 1.0, 3.0, 7.0, 7.1])
    assert result.codes_NL[4].tolist() == [1, 0]
    assert result.spilled_N.tolist() == [False] * 4 + [True]
    assert result.move_cost_N[4] == pytest.approx(92.9 - 0.1, abs=1e-4)


def test_a_spill_stays_under_the_deepest_prefix_that_has_room():
    level = np.array([[0.0], [50.0]], dtype=np.float32)
    centroids = (level * 10, level, np.array([[0.0], [1.0]], dtype=np.float32))
    result = assign([0.0, 1.0, 0.2, 500.0], centroids=centroids)
    assert result.codes_NL.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_published_sids_stay_and_new_items_move_around_them():
    result = assign([3.0, 100.0], occupied=[[0, 2], [1, 1]])
    assert result.codes_NL.tolist() == [[0, 1], [1, 0]]
    assert result.moved_N.tolist() == [True, False]


def test_the_cost_of_moving_is_negative_where_the_greedy_codes_were_not_the_best():
    centroids = (np.array([[0.0], [10.0]], dtype=np.float32), np.array([[0.0], [-6.0]], dtype=np.float32))
    result = assign([4.5], occupied=[[0, 0], [0, 1]], centroids=centroids)
    assert result.codes_NL.tolist() == [[1, 1]]
    assert result.move_cost_N.tolist() == [0.5 - 4.5]


def test_beyond_capacity_nothing_is_decided():
    with pytest.raises(CapacityError, match=r"9 SIDs needed \(7 new items, 2 published\), but widths \(2, 4\) hold 8") as caught:
        assign(np.zeros(7), occupied=[[0, 0], [0, 1]])
    assert caught.value.details == {"needed": 9, "capacity": 8}


def test_vectors_are_asked_for_only_where_items_collide():
    x = np.array([[0.0], [1.0], [3.0], [3.1], [100.0]], dtype=np.float32)
    codes, norms = model_of(CENTROIDS).encode_with_norms(x)
    asked = []
    assign_unique(
        codes,
        norms,
        np.arange(5, dtype=np.uint64),
        centroids=CENTROIDS,
        vectors_of=lambda rows: asked.append(rows.tolist()) or x[rows],
    )
    assert asked == [[3]]


def test_no_items_and_a_single_level_work():
    assert assign(np.empty((0, 1))).codes_NL.shape == (0, 2)
    assert sorted(assign([0.0, 0.0, 0.0], centroids=CENTROIDS[1:]).codes_NL[:, 0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("occupied", "words"), [([[0, 0], [0, 0]], "occupied SIDs repeat"), ([[0, 4]], "do not fit the widths"), ([[0]], "do not fit")]
)
def test_occupied_sids_that_cannot_be_are_refused(occupied, words):
    with pytest.raises(ValueError, match=words):
        assign([0.0], occupied=occupied)


def test_widths_beyond_63_bits_are_resolved_too():
    wide = np.zeros((2**13, 1), dtype=np.float32)
    wide[:, 0] = np.arange(2**13)
    result = assign(np.zeros(3), centroids=(wide,) * 5)
    assert result.codes_NL.tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 2]]


def test_spills_in_widths_beyond_63_bits_go_to_the_nearest_prefix_with_room():
    wide, last = np.arange(2.0**16, dtype=np.float32)[:, None], np.array([[0.0], [1.0]], dtype=np.float32)
    result = assign(np.zeros(4), occupied=[[0, 0, 0, 1, 1]], centroids=(wide,) * 4 + (last,))
    assert result.codes_NL[:, :3].tolist() == [[0, 0, 0]] * 4
    assert result.codes_NL[:, 3:].tolist() == [[0, 0], [0, 1], [1, 0], [2, 0]]
    assert result.spilled_N.tolist() == [False, False, True, True]


def test_residual_norms_that_are_not_numbers_are_refused():
    codes = np.zeros((2, 2), dtype=np.int32)
    with pytest.raises(ValueError, match="1 of 2 residual norms are NaN"):
        assign_unique(
            codes,
            np.array([0.0, np.nan]),
            np.zeros(2, np.uint64),
            centroids=CENTROIDS,
            vectors_of=lambda rows: np.zeros((len(rows), 1)),
        )


def crowd(seed, *, spread=0.3, items=700, published=200):
    """Return what assigns items that crowd a few of 1,024 SIDs beside published ones, by codes that a level shares."""
    rng = np.random.default_rng(seed)
    centroids = tuple((rng.normal(size=(width, 4)) / (level + 1)).astype(np.float32) for level, width in enumerate((8, 8, 16)))
    x = (spread * rng.normal(size=(items, 4))).astype(np.float32)
    occupied = np.stack(np.unravel_index(rng.permutation(1024)[:published], (8, 8, 16)), axis=1).astype(np.int32)
    codes, norms = model_of(centroids).encode_with_norms(x)
    hashes = rng.integers(0, 9, items).astype(np.uint64)

    def run(space=centroids):
        return assign_unique(codes, norms, hashes, centroids=space, vectors_of=lambda rows: x[rows], occupied_codes_ML=occupied)

    return centroids, run


def assert_same(one, two):
    for field in ("codes_NL", "moved_N", "spilled_N", "move_cost_N", "residual_norm_N"):
        assert getattr(one, field).tobytes() == getattr(two, field).tobytes()


@pytest.mark.parametrize(("mask_bytes", "first_turns"), [(1, 1), (64, 3), (2**24, 1000)])
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_how_many_turns_are_played_at_once_changes_nothing(monkeypatch, mask_bytes, first_turns, spread):
    _, run = crowd(5, spread=spread)
    expected = run()
    assert expected.spilled_N.sum() > 100
    monkeypatch.setattr(collisions, "_MASK_BYTES", mask_bytes)
    monkeypatch.setattr(collisions, "_FIRST_TURNS", first_turns)
    assert_same(run(), expected)


def test_codes_made_per_prefix_are_resolved_as_shared_ones_where_they_are_equal():
    centroids, run = crowd(6)
    assert_same(run(Implicit(lambda prefix: centroids[len(prefix)], (8, 8, 16), 4)), run())


@pytest.mark.parametrize("offset", [0, 2**62 - 5])
def test_sorting_keeps_equal_values_in_their_order_also_where_rows_do_not_fit_beside_them(offset):
    values = np.random.default_rng(0).integers(0, 5, 200) + offset
    ascending, rows = collisions._sort_with_rows(values)
    assert rows.tolist() == sorted(range(200), key=lambda row: values[row])
    assert ascending.tolist() == sorted(values.tolist())


def by_the_book(x, hashes, centroids, occupied):
    """The rule as it is written, one item at a time over all free SIDs."""
    widths = [len(level) for level in centroids]
    raw, norms = model_of(centroids).encode_with_norms(x)
    free = set(itertools.product(*map(range, widths))) - {tuple(codes) for codes in occupied.tolist()}
    turns = sorted(range(len(x)), key=lambda row: (norms[row], hashes[row], row))
    result, movers, spills = {}, [], []
    for row in turns:
        if tuple(raw[row]) in free:
            free.remove(result.setdefault(row, tuple(raw[row])))
        else:
            movers.append(row)

    def nearest(level, residual, codes):
        squared = squared_distances_f64(residual[None], centroids[level])[0]
        return min(codes, key=lambda code: (squared[code], code))

    def residual_of(row, codes):
        residual = x[row]
        for level, code in enumerate(codes):
            residual = residual - centroids[level][code]
        return residual

    for row in movers:
        prefix = tuple(raw[row][:-1])
        codes = [sid[-1] for sid in free if sid[:-1] == prefix]
        if codes:
            free.remove(result.setdefault(row, (*prefix, nearest(len(prefix), residual_of(row, prefix), codes))))
        else:
            spills.append(row)
    for row in spills:
        prefix = next(p for n in range(len(widths) - 1, -1, -1) if any(sid[:n] == (p := tuple(raw[row][:n])) for sid in free))
        while len(prefix) < len(widths):
            codes = {sid[len(prefix)] for sid in free if sid[: len(prefix)] == prefix}
            prefix = (*prefix, nearest(len(prefix), residual_of(row, prefix), codes))
        free.remove(result.setdefault(row, prefix))
    return [list(map(int, result[row])) for row in range(len(x))]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    widths=st.sampled_from([(2, 3, 2), (3, 2), (5,), (2, 2, 2, 2)]),
    fill=st.floats(0, 1),
    published=st.floats(0, 1),
    spread=st.sampled_from([0.0, 0.1, 3.0]),
)
def test_every_assignment_is_the_one_that_the_rule_spells_out(seed, widths, fill, published, spread):
    rng = np.random.default_rng(seed)
    capacity = int(np.prod(widths))
    sids = np.array(list(itertools.product(*map(range, widths))), dtype=np.int32)
    occupied = sids[rng.permutation(capacity)[: int(published * capacity)]]
    centroids = tuple(rng.normal(size=(width, 2)).astype(np.float32) for width in widths)
    x = (spread * rng.normal(size=(int(fill * (capacity - len(occupied))), 2)) + 0.3).astype(np.float32)
    hashes = rng.integers(0, 3, len(x)).astype(np.uint64)
    result = assign(x, occupied=occupied, hashes=hashes, centroids=centroids) if len(x) else None
    if result is not None:
        assert result.codes_NL.tolist() == by_the_book(x, hashes, centroids, occupied)
