"""Approximate search: near the exact one, scored by the same rule, and named when faiss is absent."""

import subprocess
import sys

import numpy as np
import pytest

from sidlake.quality.metrics.approximate import HNSW, IVF, ApproximateSearch, recall
from sidlake.quality.metrics.hit_rate import hit_rate_of, session_hits
from sidlake.quality.metrics.neighbours import ExactSearch
from sidlake.quality.metrics.sessions import Sessions

pytest.importorskip("faiss")
rng = np.random.default_rng(0)
X_ND = (rng.normal(size=(40, 16))[rng.integers(0, 40, 2000)] + 0.5 * rng.normal(size=(2000, 16))).astype(np.float32)
EXACT = ExactSearch(X_ND).nearest(np.arange(2000), 30)[0]
SESSIONS = Sessions(
    items_flat=np.arange(2000, dtype=np.int64), offsets=np.arange(0, 2001, 2), targets=rng.integers(-1, 2000, 1000).astype(np.int64)
)


@pytest.mark.parametrize(("index", "least"), [(HNSW(), 0.97), (IVF(num_lists=20, num_probes=8), 0.9), (IVF(num_probes=44), 0.9999)])
def test_most_exact_neighbours_are_found_the_same_each_time(index, least):
    found, _ = ApproximateSearch(X_ND, index).nearest(np.arange(2000), 30)
    assert recall(EXACT, found) >= least
    assert not (found == np.arange(2000)[:, None]).any()
    np.testing.assert_array_equal(ApproximateSearch(X_ND, index).nearest(np.arange(2000), 30)[0], found)


def test_fewer_probes_find_fewer():
    few, many = (ApproximateSearch(X_ND, IVF(num_lists=40, num_probes=n)).nearest(np.arange(2000), 30)[0] for n in (1, 8))
    assert recall(EXACT, few) < recall(EXACT, many)


@pytest.mark.parametrize("missing", [True, False])
def test_hit_rates_have_the_denominator_of_the_exact_search(missing):
    searches = (ExactSearch(X_ND), ApproximateSearch(X_ND))
    exact, near = (
        hit_rate_of(session_hits(search, SESSIONS, num_items=2000, count_missing_targets=missing)) for search in searches
    )
    assert (near.num_sessions, near.num_left_out, near.random_floor) == (exact.num_sessions, exact.num_left_out, exact.random_floor)
    assert near.value == pytest.approx(exact.value, abs=0.005)


def test_rows_that_were_not_found_hit_nothing():
    apart = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0) + np.arange(20, dtype=np.float32)[:, None] * 1e-3
    found, tied = ApproximateSearch(apart, IVF(num_lists=4, num_probes=1)).nearest(np.arange(20), 10)
    assert (found[:, -1] == -1).all()
    assert not tied.any()
    sessions = Sessions(items_flat=np.arange(20, dtype=np.int64), offsets=np.arange(21), targets=np.full(20, -1, dtype=np.int64))
    search = ApproximateSearch(apart, IVF(num_lists=4, num_probes=1))
    assert not session_hits(search, sessions, num_items=20, k=10, count_missing_targets=True).hits_S.any()


def test_equal_vectors_tie():
    same = np.repeat(np.random.default_rng(1).normal(size=(10, 8)), 6, axis=0).astype(np.float32)
    _, tied = ApproximateSearch(same).nearest(np.arange(60), 3)
    assert tied.all()


@pytest.mark.parametrize(
    "config", [lambda: HNSW(links=1), lambda: HNSW(search_width=0), lambda: IVF(num_probes=0), lambda: IVF(num_lists=-1)]
)
def test_settings_that_cannot_be_are_refused(config):
    with pytest.raises(ValueError, match="needs"):
        config()


def test_k_outside_the_gallery_is_refused():
    with pytest.raises(ValueError, match="k must lie"):
        ApproximateSearch(X_ND).nearest(np.array([0]), 2000)


def test_a_missing_faiss_is_named_with_the_way_out():
    code = """
import sys
sys.modules["faiss"] = None
import numpy as np
from sidlake.quality.metrics.approximate import ApproximateSearch, FaissMissing
try:
    ApproximateSearch(np.eye(3, dtype=np.float32))
except FaissMissing as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install faiss-cpu" in done.stdout
