"""Collaborative and hybrid index, and the clustering below them: groups that co-occur come together."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.metrics import adjusted_rand_score

from sidlake.errors import FitError
from sidlake.tokenizers.artifact import load_codebook, save_codebook
from sidlake.tokenizers.indexes.base import IndexConfig, hashed_codes
from sidlake.tokenizers.indexes.collaborative import CollaborativeIndex, _num_children
from sidlake.tokenizers.indexes.hybrid import HybridIndex
from sidlake.tokenizers.indexes.spectral import spectral_clusters
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.tokenizer import ItemFacts


def communities(num_groups=6, size=20, seed=0, per_item=12, stray=0.05):
    """Items in groups whose members co-occur; vectors show the group too, but faintly."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(num_groups), size)
    first = np.repeat(np.arange(len(group)), per_item)
    second = group[first] * size + rng.integers(0, size, len(first))
    second = np.where(rng.random(len(first)) < stray, rng.integers(0, len(group), len(first)), second)
    x = (rng.normal(size=(num_groups, 8))[group] + 0.8 * rng.normal(size=(len(group), 8))).astype(np.float32)
    hashes = item_hashes([f"item-{row}" for row in range(len(group))])
    return x, group, ItemFacts(item_hashes_N=hashes, pairs_P2=np.stack([first, second], axis=1))


def graph_of(facts, num_items):
    rows, columns = facts.pairs_P2[facts.pairs_P2[:, 0] != facts.pairs_P2[:, 1]].T
    counts = scipy.sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(num_items, num_items)).tocsr()
    return (counts + counts.T).tocsr()


@pytest.mark.parametrize(("num_groups", "size"), [(6, 20), (8, 100)])  # by LAPACK, and by ARPACK
def test_spectral_clusters_are_the_groups_that_co_occur(num_groups, size):
    _, group, facts = communities(num_groups, size, per_item=20)
    found = spectral_clusters(graph_of(facts, len(group)), num_groups, seed=0)
    assert adjusted_rand_score(group, found) > 0.95


def test_spectral_clusters_beyond_the_nodes_are_refused():
    with pytest.raises(ValueError, match="num_clusters"):
        spectral_clusters(scipy.sparse.csr_array(np.ones((2, 2))), 3, seed=0)


def test_the_first_code_says_which_items_are_taken_together():
    x, group, facts = communities()
    codes = CollaborativeIndex.fit(x, IndexConfig(widths=(6, 20)), facts=facts).encode(x, facts=facts)
    assert adjusted_rand_score(group, codes[:, 0]) > 0.95


def test_a_part_is_cut_again_along_its_own_co_occurrence():
    rng = np.random.default_rng(0)
    inner = np.repeat(np.arange(9), 12)
    first = np.repeat(np.arange(108), 30)
    same_inner = inner[first] * 12 + rng.integers(0, 12, len(first))
    same_outer = inner[first] // 3 * 36 + rng.integers(0, 36, len(first))
    pairs = np.stack([first, np.where(rng.random(len(first)) < 0.6, same_inner, same_outer)], axis=1)
    facts = ItemFacts(item_hashes_N=item_hashes([str(row) for row in range(108)]), pairs_P2=pairs)
    x = rng.normal(size=(108, 4)).astype(np.float32)
    codes = CollaborativeIndex.fit(x, IndexConfig(widths=(3, 3, 12)), facts=facts).encode(x, facts=facts)
    assert adjusted_rand_score(inner // 3, codes[:, 0]) > 0.95
    assert adjusted_rand_score(inner, 3 * codes[:, 0] + codes[:, 1]) > 0.9


def test_items_of_the_fit_have_sids_of_their_own_where_parts_fit_the_last_level():
    x, _, facts = communities()
    codes = CollaborativeIndex.fit(x, IndexConfig(widths=(6, 40)), facts=facts).encode(x, facts=facts)
    assert len(np.unique(codes, axis=0)) == len(x)


def test_the_larger_child_has_the_lower_code():
    x, _, facts = communities()
    counts = CollaborativeIndex.fit(x, IndexConfig(widths=(6, 20)), facts=facts).counts[0]
    assert counts.tolist() == sorted(counts.tolist(), reverse=True)


def test_an_item_of_the_fit_keeps_its_code_whatever_its_vector_becomes():
    x, _, facts = communities()
    model = CollaborativeIndex.fit(x, IndexConfig(widths=(6, 20)), facts=facts)
    assert np.array_equal(model.encode(x * 0, facts=facts), model.encode(x, facts=facts))


@pytest.mark.parametrize("kind", [CollaborativeIndex, HybridIndex])
def test_new_items_go_down_to_the_nearest_means(kind):
    x, _, facts = communities()
    model = kind.fit(x, IndexConfig(widths=(3, 5, 20)), facts=facts)
    new = np.random.default_rng(3).normal(size=(30, 8)).astype(np.float32)
    hashes = item_hashes([f"new-{row}" for row in range(30)])
    codes = model.encode(new, facts=ItemFacts(item_hashes_N=hashes))
    known = model.encode(x, facts=facts)
    for row in range(30):
        inside = np.ones(len(x), dtype=bool)
        for level in range(2):
            children = np.unique(known[inside, level])
            means = np.stack([x[inside & (known[:, level] == child)].mean(axis=0) for child in children])
            assert codes[row, level] == children[np.square(means - new[row]).sum(axis=1).argmin()]
            inside &= known[:, level] == codes[row, level]
    assert np.array_equal(codes[:, 2], hashed_codes(hashes, 20, seed=0, level=2))


def test_items_that_nobody_took_with_others_go_to_the_nearest_child():
    x, _, facts = communities()
    alone = np.array([3, 45, 99])
    pairs = facts.pairs_P2[~np.isin(facts.pairs_P2, alone).any(axis=1)]
    model = CollaborativeIndex.fit(
        x, IndexConfig(widths=(6, 20)), facts=ItemFacts(item_hashes_N=facts.item_hashes_N, pairs_P2=pairs)
    )
    codes = model.encode(x, facts=facts)
    others = np.setdiff1d(np.arange(len(x)), alone)
    means = np.stack([x[others[codes[others, 0] == child]].mean(axis=0) for child in range(6)])
    assert codes[alone, 0].tolist() == np.square(x[alone, None] - means).sum(axis=2).argmin(axis=1).tolist()


def test_the_hybrid_shares_the_first_codes_and_hashes_the_last():
    x, _, facts = communities()
    config = IndexConfig(widths=(6, 20))
    hybrid = HybridIndex.fit(x, config, facts=facts).encode(x, facts=facts)
    assert np.array_equal(hybrid[:, 0], CollaborativeIndex.fit(x, config, facts=facts).encode(x, facts=facts)[:, 0])
    assert np.array_equal(hybrid[:, 1], hashed_codes(facts.item_hashes_N, 20, seed=0, level=1))


def test_a_sample_of_the_items_makes_the_tree_and_the_others_go_down_it():
    x, _, facts = communities()
    model = CollaborativeIndex.fit(x, IndexConfig(widths=(6, 20), max_fit_rows=60), facts=facts)
    assert len(model.learned["keys"]) == 60
    assert model.encode(x, facts=facts).max(axis=0).tolist() <= [5, 19]


@pytest.mark.parametrize(
    ("num_items", "width", "levels", "number"),
    [(12_101, 256, 3, 23), (27, 256, 3, 3), (28, 256, 3, 4), (10**6, 50, 2, 50), (1, 9, 3, 1)],
)
def test_nodes_have_as_many_children_as_make_the_tree_evenly_deep(num_items, width, levels, number):
    assert _num_children(num_items, width, levels) == number


def test_the_artifact_says_when_the_pairs_happened(tmp_path):
    x, _, facts = communities()
    window = ("2014-01-01T00:00:00", "2014-06-30T00:00:00")
    told = ItemFacts(item_hashes_N=facts.item_hashes_N, pairs_P2=facts.pairs_P2, pairs_window=window)
    save_codebook(CollaborativeIndex.fit(x, IndexConfig(widths=(6, 20)), facts=told), tmp_path / "c")
    assert load_codebook(tmp_path / "c").pairs_window == window


def test_without_any_pair_there_is_nothing_to_learn():
    x, _, facts = communities()
    with pytest.raises(FitError, match="there is no such pair among the 120 rows"):
        CollaborativeIndex.fit(
            x, IndexConfig(widths=(6,)), facts=ItemFacts(item_hashes_N=facts.item_hashes_N, pairs_P2=np.empty((0, 2), int))
        )
