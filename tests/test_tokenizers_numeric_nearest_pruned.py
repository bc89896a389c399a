"""Pruned search: the codes of float64 distances, whichever part of the product is taken first, and few codes left by it."""

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.tokenizers.numeric import nearest
from sidlake.tokenizers.numeric.nearest import NearestIndex, ResidualIndex, squared_distances_f64
from sidlake.tokenizers.numeric.nearest_pruned import PrunedBook, Turned, cheapest_lead

KINDS = [
    "decaying",
    "flat",
    "low rank",
    "duplicate centroids",
    "near ties",
    "exact ties",
    "tiny",
    "huge",
    "some huge rows",
    "zeros",
]


def make(kind: str, seed: int = 0, n: int = 200, k: int = 150, d: int = 100):
    rng = np.random.default_rng(seed)
    spread = (1.0 + np.arange(d)) ** -0.7
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    centroids, x = ((rng.normal(size=(rows, d)) * spread) @ turn for rows in (k, n))
    if kind == "flat":
        centroids, x = rng.normal(size=(k, d)), rng.normal(size=(n, d))
    elif kind == "low rank":
        centroids, x = ((rows @ turn.T[:, :5]) @ turn[:5] for rows in (centroids, x))
    elif kind == "duplicate centroids":
        centroids[k // 2 :] = centroids[: k - k // 2]
    elif kind == "near ties":  # every row lies almost on the plane between two codes, far from the origin
        centroids = (centroids * 1e-3 + 100).astype(np.float32)
        pick = rng.integers(0, k, (n, 2))
        x = (centroids[pick[:, 0]] + centroids[pick[:, 1]]) / 2
    elif kind == "exact ties":
        centroids, x = rng.integers(-1, 2, size=(k, d)), rng.integers(-1, 2, size=(n, d)) / 2
    elif kind == "tiny":
        centroids, x = centroids * 1e-22, x * 1e-22
    elif kind == "huge":
        centroids, x = centroids * 1e25, x * 1e25
    elif kind == "some huge rows":
        x[::7] *= 1e20
    elif kind == "zeros":
        centroids[3], x[::2] = 0, 0
    return x.astype(np.float32), centroids.astype(np.float32)


def pruned_index(centroids, lead: int, turned: Turned | None = None) -> NearestIndex:
    index = NearestIndex(centroids)
    stack = index._stack = nearest._Stack([index])
    norms_K, usable_K = stack.norms_of_first_K, stack.first_K
    turned = turned or Turned(stack.books_KD)
    stack.pruned = PrunedBook(stack.books_KD, turned, lead, squared_norms_K=norms_K, usable_K=usable_K)
    return index


@pytest.mark.parametrize("lead", [1, 32, 36, 99])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_equal_the_float64_argmin_whatever_the_lead(kind, lead):
    x, centroids = make(kind)
    assert np.array_equal(pruned_index(centroids, lead).search(x), squared_distances_f64(x, centroids).argmin(axis=1))


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10**6), chunk=st.integers(1, 100), data=st.data())
def test_any_shape_and_any_chunking_give_the_codes_of_float64(kind, seed, chunk, data):
    x, centroids = make(kind, seed, n=40, k=data.draw(st.integers(4, 70)), d=data.draw(st.integers(6, 140)))
    index = pruned_index(centroids, data.draw(st.integers(1, centroids.shape[1] - 1)))
    assert np.array_equal(index.search(x, chunk=chunk), squared_distances_f64(x, centroids).argmin(axis=1))


@pytest.mark.parametrize("kind", ["decaying", "near ties"])
def test_turned_products_are_as_near_as_the_bound_says(kind):
    x, centroids = make(kind, d=300)
    turned = Turned(centroids)
    exact = x.astype(np.float64) @ centroids.astype(np.float64).T
    ours = (x @ turned.directions_DD).astype(np.float64) @ turned.book_KD.astype(np.float64).T
    lengths = np.outer(*(np.linalg.norm(rows.astype(np.float64), axis=1) for rows in (x, centroids)))
    assert (np.abs(exact - ours) <= turned.turning * lengths).all()
    assert turned.turning < 0.001


@pytest.mark.parametrize("lead", [32, 64])
def test_turned_centroids_may_be_off_by_all_that_the_bound_allows(lead):
    rng = np.random.default_rng(5)
    x, centroids = make("flat", n=400, k=64)
    centroids[32:] = centroids[:32] * np.float32(1.0001)  # each code has a neighbour that is as near but for the fourth digit
    turned = Turned(centroids)
    error = rng.normal(size=centroids.shape)
    error *= 0.002 * np.linalg.norm(centroids, axis=1, keepdims=True) / np.linalg.norm(error, axis=1, keepdims=True)
    turned.book_KD += error.astype(np.float32)
    turned.turning += 0.002
    assert np.array_equal(pruned_index(centroids, lead, turned).search(x), squared_distances_f64(x, centroids).argmin(axis=1))


def test_leading_directions_are_those_that_hold_most_of_the_centroids():
    _, centroids = make("low rank")
    assert np.abs(Turned(centroids).book_KD[:, 5:]).max() < 1e-5 * np.abs(centroids).max()


def test_few_leading_dimensions_are_enough_where_few_hold_most():
    x, centroids = make("low rank", n=64, k=2000)
    assert cheapest_lead(Turned(centroids), (centroids**2).sum(axis=1), x) == 32


def test_the_whole_product_is_kept_where_no_direction_leads():
    x, centroids = make("flat", n=64, k=2000)
    assert cheapest_lead(Turned(centroids), (centroids**2).sum(axis=1), x) is None


@pytest.fixture
def books():
    rng = np.random.default_rng(3)
    spread = (1.0 + np.arange(256)) ** -0.8
    x = (rng.normal(size=(3000, 256)) * spread).astype(np.float32)
    return x, [(rng.normal(size=(1500, 256)) * spread * scale).astype(np.float32) for scale in (1, 0.5)]


def test_many_rows_turn_pruning_on_and_change_no_code_on_any_number_of_threads(books, monkeypatch):
    x, levels = books
    plain, pruned = ResidualIndex(levels), ResidualIndex(levels)
    expected = plain.search(x)
    monkeypatch.setattr(nearest, "_WORTH_PRUNING", len(x) * levels[0].size)
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            codes, norms = pruned.search(x)
        assert np.array_equal(codes, expected[0])
        assert np.array_equal(norms, expected[1])
    assert all(stack.pruned for stack in pruned._stacks)
    assert not any(stack.pruning_tried for stack in plain._stacks)


def test_a_pruned_index_still_obeys_what_is_allowed(books):
    x, (centroids, _) = books
    x, index = x[:50], pruned_index(centroids, 64)
    allowed = np.random.default_rng(1).random((50, len(centroids))) < 0.01
    expected = np.where(allowed, squared_distances_f64(x, centroids), np.inf).argmin(axis=1)
    assert np.array_equal(index.search(x, allowed_NK=allowed), expected)
