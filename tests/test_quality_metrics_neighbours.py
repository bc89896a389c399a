"""Exact search block by block: brute force whatever the blocks, ties by one rule, files that are never read whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.quality.metrics.neighbours import ExactSearch, unit_rows

seeds = st.integers(0, 2**32 - 1)


def tied_vectors(rng, num_items):
    prototypes = rng.normal(size=(6, 3)).astype(np.float32)
    prototypes[0] = 0.0
    return prototypes[rng.integers(0, 6, num_items)]


def brute_force(vectors_ND, tie_break_ND, k):
    """Return each row's k nearest others by (cosine, raw cosine, row), and whether places k and k + 1 tie."""
    scores, raw = (
        np.round((unit_rows(x).astype(np.float64)) @ unit_rows(x).T.astype(np.float64), 6) for x in (vectors_ND, tie_break_ND)
    )
    everyone = range(len(vectors_ND))
    order = [sorted((j for j in everyone if j != i), key=lambda j, i=i: (-scores[i, j], -raw[i, j], j)) for i in everyone]
    tied = [k < len(row) and scores[i, row[k - 1]] == scores[i, row[k]] for i, row in enumerate(order)]
    return [row[:k] for row in order], tied


@given(seeds, st.integers(1, 12), st.sampled_from([1, 16 * 2, 16 * 7, 16 * 1000]))
@settings(max_examples=60, deadline=None)
def test_neighbours_and_their_order_agree_with_brute_force_whatever_the_blocks(seed, k, block_bytes):
    rng = np.random.default_rng(seed)
    vectors_ND, raw_ND = tied_vectors(rng, 25), rng.normal(size=(25, 4)).astype(np.float32)
    search = ExactSearch(vectors_ND, raw_ND, block_bytes=block_bytes)
    expected, tied = brute_force(vectors_ND, raw_ND, k)
    assert search.ranked(np.arange(25), k).tolist() == expected
    found, found_tied = search.nearest(np.arange(25), k)
    assert [set(row) for row in found.tolist()] == [set(row) for row in expected]
    assert found_tied.tolist() == tied


@given(seeds, st.integers(1, 10), st.sampled_from([16 * 3, 16 * 50]))
@settings(max_examples=40, deadline=None)
def test_different_vectors_agree_with_sorting_all_cosines(seed, k, block_bytes):
    rng = np.random.default_rng(seed)
    vectors_ND = rng.normal(size=(40, 5)).astype(np.float32)
    cosines = unit_rows(vectors_ND).astype(np.float64) @ unit_rows(vectors_ND).T
    np.fill_diagonal(cosines, -2)
    found = ExactSearch(vectors_ND, block_bytes=block_bytes).ranked(np.arange(40), k)
    np.testing.assert_array_equal(found, np.argsort(-cosines, axis=1)[:, :k])


def test_more_equal_rows_than_are_sorted_at_once_are_found_in_parts():
    vectors_ND = np.ones((2500, 2), dtype=np.float32)
    found, tied = ExactSearch(vectors_ND).nearest(np.arange(1000), 2)
    assert tied.all()
    assert found[:4].tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]
    assert (found[4:] == [0, 1]).all()


def test_parallel_vectors_of_other_length_tie():
    vectors_ND = np.array([[1, 0], [2, 0], [0.5, 0], [0, 1]], dtype=np.float32)
    found, tied = ExactSearch(vectors_ND).nearest(np.array([0, 3]), 1)
    assert (found.tolist(), tied.tolist()) == ([[1], [0]], [True, True])


def test_a_file_on_disk_gives_what_memory_gives(tmp_path):
    vectors_ND = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    np.save(tmp_path / "gallery.npy", vectors_ND)
    mapped = ExactSearch(np.load(tmp_path / "gallery.npy", mmap_mode="r"), block_bytes=16 * 64 * 8)
    np.testing.assert_array_equal(mapped.ranked(np.arange(50), 9), ExactSearch(vectors_ND).ranked(np.arange(50), 9))


@pytest.mark.parametrize("k", [0, 3])
def test_k_outside_the_gallery_is_refused(k):
    with pytest.raises(ValueError, match=r"k must lie in \[1, 2\]"):
        ExactSearch(np.eye(3)).nearest(np.array([0]), k)
