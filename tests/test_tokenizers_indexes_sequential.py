"""Sequential index: time order, spelled."""

import numpy as np
import pytest

from sidlake.tokenizers.indexes.base import IndexConfig
from sidlake.tokenizers.indexes.sequential import SequentialIndex, spelled
from sidlake.tokenizers.tokenizer import ItemFacts


def facts(seen, hashes):
    return ItemFacts(first_seen_N=np.array(seen, dtype=np.int64), item_hashes_N=np.array(hashes, dtype=np.uint64))


def fit(seen, hashes, widths):
    return SequentialIndex.fit(np.zeros((len(seen), 2)), IndexConfig(widths=widths), facts=facts(seen, hashes))


def test_places_are_spelled_as_fractions_of_the_code_space():
    assert spelled(np.array([0, 1, 2, 3]), 4, (2, 2)).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert spelled(np.array([0, 1, 2]), 3, (10, 10, 10)).tolist() == [[0, 0, 0], [3, 3, 3], [6, 6, 6]]


def test_codes_grow_with_time_then_hash():
    model = fit([30, 10, 20, 20], [1, 2, 9, 3], (4, 4))
    codes = model.encode(np.zeros((4, 2)), facts=facts([30, 10, 20, 20], [1, 2, 9, 3]))
    assert np.lexsort(codes.T[::-1]).tolist() == [1, 3, 2, 0]


def test_every_item_of_the_fit_has_a_sid_of_its_own_and_every_code_its_share():
    rng = np.random.default_rng(0)
    known = facts(rng.integers(0, 50, 1000), rng.permutation(1000))
    model = SequentialIndex.fit(rng.normal(size=(1000, 2)), IndexConfig(widths=(16, 16, 16)), facts=known)
    codes = model.encode(np.zeros((1000, 2)), facts=known)
    assert len(np.unique(codes, axis=0)) == 1000
    counts = np.bincount(codes[:, 0], minlength=16)
    assert counts.max() - counts.min() <= 2


def test_neighbours_in_time_share_prefixes():
    model = fit(range(100), range(100), (5, 5, 5))
    codes = model.encode(np.zeros((100, 2)), facts=facts(range(100), range(100)))
    assert (np.diff(codes[:, 0]) >= 0).all()
    assert (np.diff(codes[:, 0]) > 0).sum() == 4


@pytest.mark.parametrize(("seen", "hashed", "place"), [(5, 0, 0), (10, 1, 0), (10, 5, 1), (15, 0, 1), (20, 8, 2), (99, 0, 3)])
def test_new_items_take_the_place_of_the_first_known_item_that_is_not_before_them(seen, hashed, place):
    model = fit([10, 20, 30], [2, 7, 4], (2, 2))
    assert model.encode([[0, 0]], facts=facts([seen], [hashed])).tolist() == spelled(np.array([place]), 4, (2, 2)).tolist()


def test_places_are_right_among_many_equal_times():
    rng = np.random.default_rng(1)
    seen, hashes = rng.integers(0, 5, 300), rng.permutation(300)
    new_seen, new_hashes = rng.integers(-1, 7, 80), rng.integers(0, 300, 80)
    stored = sorted(zip(seen.tolist(), hashes.tolist(), strict=True))
    expected = [sum(key < new for key in stored) for new in zip(new_seen.tolist(), new_hashes.tolist(), strict=True)]
    codes = fit(seen, hashes, (7, 50)).encode(np.zeros((80, 2)), facts=facts(new_seen, new_hashes))
    assert codes.tolist() == spelled(np.array(expected), 301, (7, 50)).tolist()
