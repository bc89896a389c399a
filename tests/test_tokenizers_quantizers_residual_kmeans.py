"""Residual k-means: as good as faiss and scikit-learn, the same everywhere, sound on degenerate input."""

import os
import subprocess
import sys

import faiss
import numpy as np
import pytest
import threadpoolctl
from sklearn.cluster import KMeans

from sidlake.errors import FitError
from sidlake.tokenizers.artifact import codebook_hash
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.numeric.kmeans import _as_integers, _distances_from, _integer_distances, fit_kmeans, sums_by_code
from sidlake.tokenizers.numeric.nearest import nearest_codes, squared_distances_f64
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig, default_widths
from sidlake.tokenizers.tokenizer import ItemFacts


def clustered(n=1200, d=16, k=40, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(k, d))[rng.integers(0, k, n)] + noise * rng.normal(size=(n, d))).astype(np.float32)


def inertia(x, centroids):
    return squared_distances_f64(x, np.asarray(centroids, dtype=np.float32)).min(axis=1).sum()


def fit_one_level(x, k, seed=0, tolerance=1e-4):
    return fit_kmeans(x, k, rng=np.random.default_rng(seed), max_iterations=25, tolerance=tolerance)


@pytest.mark.parametrize(("k", "noise"), [(40, 0.1), (40, 0.4), (100, 0.4)])
def test_inertia_is_within_two_percent_of_scikit_learn_and_faiss(k, noise):
    ours, sklearns, faisses = [], [], []
    for seed in range(3):
        x = clustered(noise=noise, seed=seed)
        ours.append(inertia(x, fit_one_level(x, k, seed).centroids_KD))
        sklearns.append(inertia(x, KMeans(k, n_init=1, max_iter=25, random_state=seed).fit(x).cluster_centers_))
        peer = faiss.Kmeans(x.shape[1], k, niter=25, seed=seed + 1, min_points_per_centroid=1)
        peer.train(x)
        faisses.append(inertia(x, peer.centroids))
    assert np.mean(ours) <= 1.02 * np.mean(sklearns)
    assert np.mean(ours) <= 1.02 * np.mean(faisses)


def test_reconstruction_error_is_within_two_percent_of_faiss():
    x = clustered(n=1500, noise=0.6)
    model = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(32, 32, 32)))
    peer = faiss.ResidualQuantizer(x.shape[1], 3, 5)
    peer.max_beam_size = 1
    peer.cp.min_points_per_centroid = 1
    peer.train(x)
    ours = np.square(x - model.decode(model.encode(x))).sum()
    assert ours <= 1.02 * np.square(x - peer.decode(peer.compute_codes(x))).sum()


def test_no_level_collapses_on_clustered_data():
    x = clustered(n=2000)
    model = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(64, 64, 64)))
    assert [int((counts > 0).sum()) for counts in model.counts] == [64, 64, 64]


def test_each_level_lowers_the_reconstruction_error():
    x = clustered()
    model = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(32, 32, 32)))
    codes = model.encode(x)
    errors = [np.square(x - model.decode(codes, depth=depth)).sum() for depth in range(4)]
    assert errors[0] > errors[1] > errors[2] > errors[3] > 0


def test_the_sum_of_centroids_is_the_reconstruction_and_the_norm_is_what_is_left():
    x = clustered(n=300)
    model = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(8, 4)))
    codes, norms = model.encode_with_norms(x)
    decoded = model.centroids[0][codes[:, 0]] + model.centroids[1][codes[:, 1]]
    assert np.array_equal(model.decode(codes), decoded)
    assert np.allclose(norms, np.linalg.norm(x - decoded, axis=1), rtol=1e-5)


def test_counts_are_the_codes_of_the_rows_fitted():
    x = clustered(n=500)
    model = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(16, 16)))
    codes = model.encode(x)
    assert all(np.array_equal(model.counts[level], np.bincount(codes[:, level], minlength=16)) for level in range(2))


FIT_AND_PRINT = """
import numpy as np
from sidlake.tokenizers.artifact import codebook_hash
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig
x = np.random.default_rng(7).normal(size=(1500, 48)).astype(np.float32)
print(codebook_hash(ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(64, 64), seed=3, max_iterations=6))))
"""


def test_other_processes_with_one_or_two_threads_fit_the_same_codebooks():
    hashes = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        run = subprocess.run([sys.executable, "-c", FIT_AND_PRINT], env=environment, capture_output=True, text=True, check=True)
        hashes.add(run.stdout.strip())
    assert len(hashes) == 1
    assert len(hashes.pop()) == 64


def test_another_seed_fits_other_codebooks():
    x = clustered()
    fits = [ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(16,), seed=seed)) for seed in (0, 0, 1)]
    assert codebook_hash(fits[0]) == codebook_hash(fits[1])
    assert not np.array_equal(fits[0].centroids[0], fits[2].centroids[0])


def test_with_a_stated_order_shuffled_rows_fit_the_same_codebooks():
    x, ids = clustered(n=400), [f"item-{row}" for row in range(400)]
    shuffle = np.random.default_rng(5).permutation(400)
    config = ResidualKMeansConfig(widths=(16, 16), max_fit_rows=300)
    one = ResidualKMeans.fit(x, config, order_N=np.argsort(item_hashes(ids)))
    two = ResidualKMeans.fit(x[shuffle], config, order_N=np.argsort(item_hashes([ids[row] for row in shuffle])))
    assert codebook_hash(one) == codebook_hash(two)


def test_the_sums_that_make_centroids_do_not_depend_on_threads_and_are_exact_enough():
    x, codes = clustered(n=40_000, d=3), np.random.default_rng(0).integers(0, 7, 40_000).astype(np.int32)
    with threadpoolctl.threadpool_limits(1):
        one = sums_by_code(x, codes, 7)
    assert np.array_equal(one, sums_by_code(x, codes, 7))
    assert np.allclose(one, [x[codes == code].astype(np.float64).sum(axis=0) for code in range(7)])


def test_many_rows_are_fitted_on_a_sample_first_and_no_worse_than_faiss():
    x = clustered(n=20_000, d=16)
    ours = fit_kmeans(x, 64, rng=np.random.default_rng(0), max_iterations=25, tolerance=1e-4)
    peer = faiss.Kmeans(16, 64, niter=20, seed=1, max_points_per_centroid=len(x))
    peer.train(x)
    assert np.square(x - ours.centroids_KD[ours.codes_N]).sum() <= 1.005 * peer.obj[-1]
    assert np.array_equal(ours.codes_N, nearest_codes(x, ours.centroids_KD))
    assert ours.num_iterations <= 10


def test_the_start_works_on_whole_numbers_that_float64_holds_exactly():
    x = _as_integers(clustered(n=4096, d=384) * 1e6)
    distances = _integer_distances(x, np.einsum("sd,sd->s", x, x), [0, 5])
    exact = np.square(x.astype(np.int64)[[0, 5], None, :] - x.astype(np.int64)[None]).sum(axis=2)
    assert np.array_equal(distances, exact)
    assert np.array_equal(_distances_from(x)(np.array([0, 5])), exact)
    assert np.array_equal(_distances_from(np.vstack([x, x[:1]]))(np.array([0, 5]))[:, :4096], exact)  # too many rows for a table
    assert np.square(2 * np.abs(x).max()) * x.size <= 2**53


def test_identical_vectors_fit_and_decode_to_themselves():
    x = np.full((50, 4), 0.3, dtype=np.float32)
    model = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(8, 8)))
    assert np.array_equal(model.decode(model.encode(x)), x)
    assert np.array_equal(model.decode([[7, 7]]), x[:1])
    assert model.counts[0].tolist() == [50] + [0] * 7


def test_as_many_codes_as_distinct_vectors_find_each_of_them():
    x = np.repeat(np.random.default_rng(0).normal(size=(30, 5)), [1] * 29 + [400], axis=0).astype(np.float32)
    model = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(30,)))
    assert np.array_equal(model.decode(model.encode(x)), x)


def test_one_item_fits():
    model = ResidualKMeans.fit([[1.0, 2.0]], ResidualKMeansConfig(widths=default_widths(1)))
    assert model.encode([[1.0, 2.0]]).tolist() == [[0, 0, 0]]


def test_codes_without_rows_are_revived_at_the_farthest_rows():
    far = np.array([[100.0, 0.0]] * 2, dtype=np.float32)
    x = np.concatenate([np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32), far])
    model = fit_one_level(x, 20)
    assert (model.counts_K > 0).all()
    assert 2 in model.counts_K[model.centroids_KD[:, 0] > 50]


def test_revived_codes_are_refined_where_the_start_could_not_tell_rows_apart():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 16))
    centres[:, 0] += np.where(np.arange(40) < 20, 2.0**20, -(2.0**20))  # so far apart that the start sees two points
    x = np.repeat(centres, 100, axis=0) + 0.1 * rng.normal(size=(4000, 16))
    ideal = inertia(x.astype(np.float32), x.reshape(40, 100, 16).mean(axis=1))
    assert inertia(x, fit_one_level(x.astype(np.float32), 40, tolerance=0).centroids_KD) <= 1.05 * ideal


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.ones((100, 3)), "256 codes need at least 256 rows, got 100: lower widths or let them follow the number of items"),
        (np.full((300, 3), np.nan), "300 of 300 vectors hold NaN or infinity"),
        (np.where(np.arange(900).reshape(300, 3) == 5, np.inf, 1.0), "1 of 300 vectors hold NaN or infinity, the first is row 1"),
        (np.ones(300), "must have shape"),
    ],
)
def test_rows_that_cannot_be_fitted_are_named(x, words):
    with pytest.raises(FitError, match=words):
        ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(256,)))


def test_vectors_of_another_dimension_are_not_encoded():
    model = ResidualKMeans.fit(clustered(n=50, d=4), ResidualKMeansConfig(widths=(4,)))
    with pytest.raises(ValueError, match=r"\[rows, 4\]"):
        model.encode(np.ones((2, 5)))


def test_codes_out_of_range_are_not_decoded():
    model = ResidualKMeans.fit(clustered(n=50, d=4), ResidualKMeansConfig(widths=(4, 4)))
    with pytest.raises(ValueError, match="the widths are"):
        model.decode([[0, 4]])


@pytest.mark.parametrize(
    "fields",
    [
        {"widths": ()},
        {"widths": (0,)},
        {"widths": (4,), "seed": -1},
        {"widths": (4,), "max_iterations": 0},
        {"widths": (4,), "tolerance": float("nan")},
        {"widths": (4,), "max_fit_rows": 3},
        {"widths": (4,), "device": "tpu"},
    ],
)
def test_a_config_out_of_range_is_refused(fields):
    with pytest.raises(ValueError, match=next(reversed(fields))):
        ResidualKMeansConfig(**fields)


@pytest.mark.parametrize(
    ("num_items", "width"), [(1, 1), (2, 2), (3, 3), (8, 8), (1_609, 64), (4_631, 128), (12_101, 256), (10**9, 8192)]
)
def test_default_widths_follow_the_number_of_items(num_items, width):
    assert default_widths(num_items) == (width,) * 3


def test_default_widths_leave_room_for_four_times_the_items():
    assert all(np.prod(default_widths(num_items), dtype=object) >= 4 * num_items for num_items in [*range(2, 3000), 10**6, 10**9])


def warm_facts(former_codes):
    return ItemFacts(former_codes_NL=np.asarray(former_codes, dtype=np.int32))


def test_a_warm_start_begins_at_the_means_of_the_former_codes():
    # Two pairs of points; whichever pair had the code 1 keeps it, and the residuals' codes likewise.
    x = np.array([[0.0], [1.0], [10.0], [11.0]], dtype=np.float32)
    former = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    config = ResidualKMeansConfig(widths=(2, 2))
    for codes in (former, 1 - former):
        model = ResidualKMeans.fit(x, config, facts=warm_facts(codes))
        assert model.encode(x).tolist() == codes.tolist()
        assert model.centroids[0][codes[:, 0], 0].tolist() == [0.5, 0.5, 10.5, 10.5]


def test_a_warm_start_keeps_codes_that_a_rotated_space_would_renumber():
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((8, 6))[rng.integers(8, size=600)] * 3 + rng.standard_normal((600, 6))).astype(np.float32)
    config = ResidualKMeansConfig(widths=(8, 8))
    former = ResidualKMeans.fit(x, config).encode(x)
    rotated = (x @ np.linalg.qr(rng.standard_normal((6, 6)))[0]).astype(np.float32)
    anew = ResidualKMeansConfig(widths=(8, 8), seed=1)
    kept_warm = (ResidualKMeans.fit(rotated, anew, facts=warm_facts(former)).encode(rotated) == former).mean()
    kept_cold = (ResidualKMeans.fit(rotated, anew).encode(rotated) == former).mean()
    assert kept_warm > 0.9
    assert kept_cold < 0.5


def test_rows_and_levels_without_a_former_code_start_cold_and_all_codes_are_used():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((300, 4)).astype(np.float32)
    config = ResidualKMeansConfig(widths=(8, 8))
    none = np.full((300, 2), -1)
    cold = ResidualKMeans.fit(x, config)
    assert np.array_equal(ResidualKMeans.fit(x, config, facts=warm_facts(none)).centroids[0], cold.centroids[0])
    some = none.copy()
    some[:40, 0] = np.arange(40) % 11  # three codes beyond the width, and no code of the second level
    model = ResidualKMeans.fit(x, config, facts=warm_facts(some))
    assert all(counts.all() for counts in model.counts)
    few = none.copy()
    few[:2] = 3  # all but one code are copies of it, and find rows of their own
    assert all(counts.all() for counts in ResidualKMeans.fit(x, config, facts=warm_facts(few)).counts)


def test_a_warm_start_follows_its_rows_when_they_are_taken_in_another_order():
    rng = np.random.default_rng(7)
    x, codes = rng.standard_normal((200, 4)).astype(np.float32), rng.integers(-1, 8, (200, 2))
    config, order = ResidualKMeansConfig(widths=(8, 8), max_fit_rows=150), rng.permutation(200)
    one = ResidualKMeans.fit(x, config, facts=warm_facts(codes))
    place = np.argsort(order)
    two = ResidualKMeans.fit(x[order], config, facts=warm_facts(codes[order]), order_N=place)
    assert all(np.array_equal(a, b) for a, b in zip(one.centroids, two.centroids, strict=True))


def test_former_codes_of_other_rows_or_levels_are_refused():
    x = np.zeros((4, 2), dtype=np.float32)
    with pytest.raises(ValueError, match=r"former codes must have shape \(4, 2\), one row per vector, got \(4, 3\)"):
        ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(2, 2)), facts=warm_facts(np.zeros((4, 3))))
