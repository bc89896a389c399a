"""Beam search over residual codes: faiss's codes, brute force with a beam that holds all, never worse than the nearest code."""

import itertools
import os
import subprocess
import sys

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.errors import FitError
from sidlake.tokenizers.artifact import load_codebook, save_codebook
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.quantizers.beam_kmeans import BeamKMeans, BeamKMeansConfig
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig
from sidlake.tokenizers.uniqueness.strategies import make_unique


def vectors(n=2000, d=24, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(60, d))[rng.integers(0, 60, n)] + 0.5 * rng.normal(size=(n, d))).astype(np.float32)


def fitted(x, widths=(16, 16, 16), beam=5):
    return BeamKMeans.fit(x, BeamKMeansConfig(widths=widths, beam=beam, max_iterations=5))


def error(model, x):
    return float(np.square(x - model.decode(model.encode(x))).sum())


def test_codes_are_those_of_faiss_with_the_same_codebooks_and_beam():
    x = vectors()
    model = fitted(x)
    peer = faiss.ResidualQuantizer(x.shape[1], 3, 4)
    peer.max_beam_size = 5
    faiss.copy_array_to_vector(np.concatenate(model.centroids).ravel(), peer.codebooks)
    peer.is_trained = True
    decoded = peer.decode(peer.compute_codes(x))
    assert (np.abs(decoded - model.decode(model.encode(x))).max(axis=1) < 1e-4).mean() > 0.999
    assert error(model, x) == pytest.approx(float(np.square(x - decoded).sum()), rel=1e-4)


def test_a_beam_that_holds_every_prefix_finds_the_best_sum_of_all():
    x = vectors(60, d=6)
    model = fitted(x, widths=(4, 4, 4), beam=16)
    sums = {codes: model.decode(np.array([codes]))[0] for codes in itertools.product(range(4), repeat=3)}
    best = [min(sums, key=lambda codes: float(np.square(row.astype(np.float64) - sums[codes]).sum())) for row in x]
    assert [tuple(codes) for codes in model.encode(x).tolist()] == best


def test_a_beam_of_one_gives_the_codes_and_norms_of_residual_kmeans():
    x = vectors()
    model = fitted(x, beam=1)
    plain = ResidualKMeans(model.centroids, model.counts, ResidualKMeansConfig(widths=model.widths, max_iterations=5))
    for ours, theirs in zip(model.encode_with_norms(x), plain.encode_with_norms(x), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_wider_beam_leaves_less():
    x = vectors()
    errors = [error(fitted(x, beam=beam), x) for beam in (1, 2, 5, 20)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.985 * errors[0]


def test_norms_are_those_of_what_the_codes_leave():
    x = vectors(300)
    model = fitted(x)
    codes, norms = model.encode_with_norms(x)
    assert np.allclose(norms, np.linalg.norm(x - model.decode(codes), axis=1), rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), start=st.integers(0, 250), size=st.integers(1, 50))
def test_a_rows_codes_do_not_depend_on_the_rows_beside_it(seed, start, size):
    x = vectors(300, seed=seed)
    model = fitted(vectors(300))
    assert np.array_equal(model.encode(x)[start : start + size], model.encode(x[start : start + size]))


def test_equal_centroids_and_rows_give_the_lowest_codes():
    book = np.zeros((4, 3), dtype=np.float32)
    config = BeamKMeansConfig(widths=(4, 4), beam=3)
    model = BeamKMeans([book, book], [np.zeros(4, np.int64)] * 2, config)
    assert model.encode(np.ones((2, 3))).tolist() == [[0, 0], [0, 0]]


def test_final_sids_are_unique_and_published_ones_stay():
    x = vectors(1500)
    model = fitted(x, widths=(8, 16, 16))
    hashes = item_hashes([f"item-{row}" for row in range(len(x))])
    codes, norms = model.encode_with_norms(x)
    old = make_unique("reassign", model, codes[:1000], norms[:1000], hashes[:1000], latents_of=lambda rows: x[rows]).codes_NL
    new = make_unique(
        *("reassign", model, codes[1000:], norms[1000:], hashes[1000:]),
        latents_of=lambda rows: x[1000:][rows],
        occupied_codes_ML=old,
    ).codes_NL
    assert len(np.unique(codes, axis=0)) < len(x)
    assert len(np.unique(np.vstack([old, new]), axis=0)) == len(x)


def test_every_code_is_used_where_the_rows_allow_it():
    x = vectors(4000)
    codes = fitted(x).encode(x)
    assert [len(np.unique(codes[:, level])) for level in range(3)] == [16, 16, 16]


def test_the_artifact_gives_the_same_codes_in_another_process(tmp_path):
    x = vectors(200)
    model = fitted(x)
    save_codebook(model, tmp_path / "books.safetensors")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import numpy as np; from sidlake.tokenizers.artifact import load_codebook; "
        "m = load_codebook('books.safetensors'); assert m.config.beam == 5; np.save('codes.npy', m.encode(np.load('x.npy')))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "2"}, check=True)
    assert np.array_equal(np.load(tmp_path / "codes.npy"), model.encode(x))
    assert load_codebook(tmp_path / "books.safetensors").kind == "beam_kmeans"


@pytest.mark.parametrize("beam", [0, 65])
def test_a_beam_out_of_range_is_named(beam):
    with pytest.raises(ValueError, match=f"beam must be a whole number in .1, 64., got {beam}"):
        BeamKMeansConfig(widths=(4,), beam=beam)


def test_bad_rows_are_named():
    x = vectors(100)
    with pytest.raises(FitError, match="at least 16 rows, got 5"):
        fitted(x[:5])
    model = fitted(x)
    with pytest.raises(ValueError, match="dimension"):
        model.encode(x[:, :5])
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.encode(np.full((1, 24), np.nan))
