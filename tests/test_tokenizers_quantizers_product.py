"""Product quantization: as good as faiss; with a rotation, better where dimensions belong together."""

import faiss
import numpy as np
import pytest

from sidlake.errors import FitError
from sidlake.tokenizers.numeric.nearest import squared_distances_f64
from sidlake.tokenizers.quantizers.product import OptimizedProduct, OptimizedProductConfig, Product, ProductConfig


def correlated(n=2000, d=16, seed=0):
    """Rows whose variance lies along a few directions that no block of dimensions holds."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (rng.normal(size=(n, d)) * 0.7 ** np.arange(d) @ axes + 3).astype(np.float32)


def left(x, decoded):
    return np.square(x - decoded).sum()


def test_product_quantization_is_within_two_percent_of_faiss():
    x = correlated()
    model = Product.fit(x, ProductConfig(widths=(32,) * 4))
    peer = faiss.ProductQuantizer(16, 4, 5)
    peer.train(x)
    assert left(x, model.decode(model.encode(x))) <= 1.02 * left(x, peer.decode(peer.compute_codes(x)))


def test_optimized_product_quantization_is_within_two_percent_of_faiss_and_better_than_plain():
    x = correlated()
    model = OptimizedProduct.fit(x, OptimizedProductConfig(widths=(32,) * 4))
    rotation = faiss.OPQMatrix(16, 4)
    rotation.niter = 16
    rotation.train(x)
    rotated = rotation.apply(x)
    peer = faiss.ProductQuantizer(16, 4, 5)
    peer.train(rotated)
    plain = Product.fit(x, ProductConfig(widths=(32,) * 4))
    ours = left(x, model.decode(model.encode(x)))
    assert ours <= 1.02 * left(rotated, peer.decode(peer.compute_codes(rotated)))
    assert ours < 0.95 * left(x, plain.decode(plain.encode(x)))


def test_the_rotation_is_orthogonal_and_leads_back():
    x = correlated(500)
    model = OptimizedProduct.fit(x, OptimizedProductConfig(widths=(16,) * 3, rotations=3))
    assert np.allclose(model.rotation_DD @ model.rotation_DD.T, np.eye(16), atol=1e-6)
    assert np.allclose(model.latents(x) @ model.rotation_DD.T, x, atol=1e-5)


def test_where_blocks_already_hold_what_belongs_together_nothing_is_lost_by_rotating():
    rng = np.random.default_rng(0)
    x = np.concatenate([5 * rng.normal(size=(8, 4))[rng.integers(0, 8, 1000)] for _ in range(2)], axis=1)
    x = (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32)
    plain = Product.fit(x, ProductConfig(widths=(8, 8)))
    rotated = OptimizedProduct.fit(x, OptimizedProductConfig(widths=(8, 8)))
    assert left(x, rotated.decode(rotated.encode(x))) <= 1.01 * left(x, plain.decode(plain.encode(x)))


def test_blocks_differ_by_one_dimension_at_most_and_cover_all():
    model = Product.fit(correlated(100, d=11), ProductConfig(widths=(4, 4, 4)))
    assert [level.shape for level in model.centroids] == [(4, 4), (4, 4), (4, 3)]
    assert model.dim == 11


@pytest.mark.parametrize(("kind", "config"), [(Product, ProductConfig), (OptimizedProduct, OptimizedProductConfig)])
def test_codes_are_those_of_a_greedy_search_with_the_increments(kind, config):
    x = correlated(400)
    model = kind.fit(x, config(widths=(16, 8, 4)))
    residual, codes = model.latents(x), []
    for level in range(3):
        increments = model.increments([0] * level)
        codes.append(squared_distances_f64(residual, increments).argmin(axis=1))
        residual = residual - increments[codes[-1]]
    assert np.array_equal(model.encode(x), np.stack(codes, axis=1))


def test_every_code_of_every_block_is_used():
    x = correlated()
    for kind, config in ((Product, ProductConfig), (OptimizedProduct, OptimizedProductConfig)):
        model = kind.fit(x, config(widths=(32,) * 4))
        codes = model.encode(x)
        assert [len(np.unique(codes[:, level])) for level in range(4)] == [32] * 4
        assert all(np.array_equal(model.counts[i], np.bincount(codes[:, i], minlength=32)) for i in range(4))


def test_identical_vectors_fit_and_decode_to_themselves():
    x = np.full((50, 4), 0.25, dtype=np.float32)
    plain = Product.fit(x, ProductConfig(widths=(8, 8)))
    rotated = OptimizedProduct.fit(x, OptimizedProductConfig(widths=(8, 8)))
    assert np.array_equal(plain.decode(plain.encode(x)), x)
    assert np.allclose(rotated.decode(rotated.encode(x)), x, atol=1e-6)


def test_more_levels_than_dimensions_are_refused():
    with pytest.raises(FitError, match="3 levels need vectors of as many dimensions, got 2"):
        Product.fit(np.ones((9, 2)), ProductConfig(widths=(2, 2, 2)))


@pytest.mark.parametrize("fields", [{"max_iterations": 0}, {"tolerance": -1.0}, {"rotations": -1}])
def test_a_config_out_of_range_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        OptimizedProductConfig(widths=(4,), **fields)
