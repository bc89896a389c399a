"""Exact nearest codes: equal to brute force in float64, whatever the chunking, order, threads or device."""

import numpy as np
import pytest
import threadpoolctl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.tokenizers.numeric.nearest import (
    NearestIndex,
    ResidualIndex,
    _fold_sum,
    _full_precision,
    nearest_codes,
    paired_squared_distances,
    squared_distances_f64,
)


def make(kind: str, seed: int = 0, n: int = 300, k: int = 40, d: int = 19):
    rng = np.random.default_rng(seed)
    centroids = rng.normal(size=(k, d)).astype(np.float32)
    if kind == "random":
        x = rng.normal(size=(n, d))
    elif kind == "clustered":
        x = centroids[rng.integers(0, k, n)] + 0.01 * rng.normal(size=(n, d))
    elif kind == "duplicate centroids":
        centroids[k // 2 :] = centroids[: k - k // 2]
        x = rng.normal(size=(n, d))
    elif kind == "near ties":  # every row lies almost on the plane between two codes, far from the origin
        centroids = (centroids * 1e-3 + 100).astype(np.float32)
        pick = rng.integers(0, k, (n, 2))
        x = (centroids[pick[:, 0]] + centroids[pick[:, 1]]) / 2
    elif kind == "tiny":
        centroids, x = centroids * np.float32(1e-22), 1e-22 * rng.normal(size=(n, d))
    elif kind == "huge":
        centroids, x = centroids * np.float32(1e25), 1e25 * rng.normal(size=(n, d))
    else:
        x = np.ones((n, d))
    return x.astype(np.float32), centroids


KINDS = ["random", "clustered", "duplicate centroids", "near ties", "tiny", "huge", "identical rows"]


def brute_force(x, centroids):
    exact = (x[:, None, :].astype(np.longdouble) - centroids[None].astype(np.longdouble)) ** 2
    return exact.sum(axis=2).argmin(axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_equal_the_float64_argmin(kind):
    x, centroids = make(kind)
    assert np.array_equal(nearest_codes(x, centroids), squared_distances_f64(x, centroids).argmin(axis=1))


@pytest.mark.parametrize("kind", ["random", "clustered", "duplicate centroids"])
def test_codes_equal_brute_force_in_extended_precision(kind):
    x, centroids = make(kind)
    assert np.array_equal(nearest_codes(x, centroids), brute_force(x, centroids))


def test_near_ties_are_where_float32_alone_goes_wrong():
    x, centroids = make("near ties")
    float32_only = ((centroids**2).sum(axis=1) - 2 * x @ centroids.T).argmin(axis=1)
    assert (float32_only != nearest_codes(x, centroids)).mean() > 0.2


def test_exact_ties_go_to_the_lowest_code():
    assert nearest_codes([[0.5, 0.0]], [[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]).tolist() == [0]


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10**6), chunk=st.integers(1, 400), data=st.data())
def test_any_chunking_and_any_order_of_rows_give_the_same_codes(kind, seed, chunk, data):
    x, centroids = make(kind, seed, n=60, k=17, d=data.draw(st.integers(1, 24)))
    order = np.array(data.draw(st.permutations(range(60))))
    codes = nearest_codes(x, centroids)
    assert np.array_equal(nearest_codes(x, centroids, chunk=chunk), codes)
    assert np.array_equal(nearest_codes(x[order], centroids, chunk=chunk), codes[order])


def test_the_number_of_threads_does_not_matter():
    x, centroids = make("near ties", n=3000, k=200, d=96)
    with threadpoolctl.threadpool_limits(1):
        one = nearest_codes(x, centroids)
    with threadpoolctl.threadpool_limits(2):
        two = nearest_codes(x, centroids)
    assert np.array_equal(one, two)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_torch_screen_gives_the_same_codes(kind, threads):
    x, centroids = make(kind)
    index = NearestIndex(centroids, device="cpu:0")  # the path CUDA takes, run on the CPU
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert np.array_equal(index.search(x), nearest_codes(x, centroids))
    finally:
        torch.set_num_threads(before)


def test_tf32_is_off_during_the_screen_and_as_before_afterwards():
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    try:
        with _full_precision():
            during = matmul.fp32_precision
        assert (during, matmul.fp32_precision) == ("ieee", "tf32")
    finally:
        matmul.fp32_precision = before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_gives_the_codes_of_the_cpu(kind):
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    x, centroids = make(kind, n=5000, k=300, d=64)
    assert np.array_equal(nearest_codes(x, centroids, device="cuda"), nearest_codes(x, centroids))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_only_allowed_codes_are_chosen_and_the_nearest_of_them(kind, device):
    x, centroids = make(kind)
    allowed = np.random.default_rng(1).random((len(x), len(centroids))) < 0.2
    allowed[:, 3] |= ~allowed.any(axis=1)
    index = NearestIndex(centroids, device=device)
    expected = np.where(allowed, squared_distances_f64(x, centroids), np.inf).argmin(axis=1)
    assert np.array_equal(index.search(x, allowed_NK=allowed), expected)


def test_distances_do_not_depend_on_the_rows_beside_them():
    x, centroids = make("near ties", n=500, k=7, d=37)
    together = squared_distances_f64(x, centroids)
    alone = np.concatenate([squared_distances_f64(row[None], centroids) for row in x])
    rows, codes = np.divmod(np.arange(500 * 7), 7)
    assert np.array_equal(together, alone)
    assert np.array_equal(together.ravel(), paired_squared_distances(x, rows, centroids, codes))


@pytest.mark.parametrize(
    ("x", "centroids", "words"),
    [
        ([[1.0, 2.0]], [[1.0]], "x has 2 dimensions, the centroids have 1"),
        ([[np.nan], [1.0]], [[1.0]], "1 rows with NaN or infinity, the first is row 0"),
        ([[1.0]], [[np.inf]], "centroids has 1 rows with NaN or infinity"),
        ([1.0], [[1.0]], "x must have shape"),
        ([[1.0]], np.empty((0, 1)), "centroids must have shape"),
    ],
)
def test_bad_arguments_are_named(x, centroids, words):
    with pytest.raises(ValueError, match=words):
        nearest_codes(x, centroids)


def test_a_row_with_no_allowed_code_is_an_error():
    with pytest.raises(ValueError, match="permitted code in every row"):
        NearestIndex([[1.0], [2.0]]).search([[1.0]], allowed_NK=np.zeros((1, 2), dtype=bool))


def test_no_rows_give_no_codes():
    assert nearest_codes(np.empty((0, 3)), np.ones((2, 3))).shape == (0,)


def level_by_level(x, books):
    codes, residual = [], x
    for level, book in enumerate(books):
        squared = squared_distances_f64(residual, book)
        codes.append(squared.argmin(axis=1))
        norms = np.sqrt(squared.min(axis=1))
        if level + 1 < len(books):
            residual = residual - book[codes[-1]]
    return np.stack(codes, axis=1), norms


def books_for(kind: str, seed: int = 0, d: int = 19):
    x, first = make(kind, seed, d=d)
    scale = np.float32(1e-3 if kind == "near ties" else 1.0)
    return x, [first, *(make(kind, seed + level, k=30, d=d)[1][:23] * scale for level in (1, 2))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fused", [True, False])
def test_residual_search_is_level_by_level_search_bit_for_bit(kind, fused, monkeypatch):
    if not fused:
        monkeypatch.setattr("sidlake.tokenizers.numeric.nearest._FUSED_CODES", 0)
    for seed in range(5):
        x, books = books_for(kind, seed)
        codes, norms = ResidualIndex(books).search(x)
        expected_codes, expected_norms = level_by_level(x, books)
        assert np.array_equal(codes, expected_codes)
        assert np.array_equal(norms, expected_norms)


def test_most_rows_of_a_residual_search_need_no_float64():
    from sidlake.tokenizers.numeric import nearest_loops as compiled

    x, books = books_for("random", d=64)
    stack = ResidualIndex(books)._stacks[0]
    work, norms, codes = np.empty_like(x), np.empty(len(x), np.float32), np.empty((len(x), 3), np.int32)
    compiled.take(x, work, norms)
    settled = compiled.decide(
        *(x @ stack.twice_DK, work, norms, stack.books_KD, stack.starts_L, stack.norms_of_first_K),
        *(stack.gram_KK, stack.first_K[None], stack.largest_L, codes),
    )
    assert settled < 0.02 * codes.size


def test_many_rows_on_threads_get_the_codes_of_few(monkeypatch):
    monkeypatch.setattr("sidlake.tokenizers.numeric.threads._ALONE", 0)
    before = torch.get_num_threads()
    x, books = books_for("clustered", d=64)
    with threadpoolctl.threadpool_limits(2):
        codes, norms = ResidualIndex(books).search(np.tile(x, (20, 1)))
    alone_codes, alone_norms = ResidualIndex(books).search(x)
    assert np.array_equal(codes, np.tile(alone_codes, (20, 1)))
    assert np.array_equal(norms, np.tile(alone_norms, 20))
    assert torch.get_num_threads() == before


def test_compiled_distances_have_the_bits_of_the_stated_order():
    x, centroids = make("random", d=37)
    rows, codes = np.arange(len(x)), np.arange(len(x)) % len(centroids)
    terms = np.square(x.astype(np.float64) - centroids[codes])
    assert np.array_equal(paired_squared_distances(x, rows, centroids, codes), _fold_sum(terms))
