import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from sidlake.encoders.fusion.fusion import Fusion, FusionConfig, _fixed_product
from sidlake.errors import ArtifactError, EncoderError

NUM_ROWS = 600
CONFIG = FusionConfig(weights=(("text", 1.0, 12), ("behaviour", 0.7, 5)))


def modalities(num_rows=NUM_ROWS, seed=0):
    rng = np.random.default_rng(seed)
    text = (rng.standard_normal((num_rows, 20)) @ np.diag(np.linspace(3, 0.2, 20)) + 5).astype(np.float32)
    behaviour = rng.standard_normal((num_rows, 8)).astype(np.float32)
    present = {"text": np.ones(num_rows, bool), "behaviour": rng.random(num_rows) < 0.8}
    return {"text": text, "behaviour": behaviour}, present


@pytest.fixture(scope="module")
def fitted():
    vectors, present = modalities()
    return Fusion.fit(vectors, present, CONFIG)


@pytest.fixture(scope="module")
def wide():
    """A fusion of the size at which BLAS takes another routine for few rows: 384 dims to 100."""
    rng = np.random.default_rng(1)
    vectors = {"text": rng.standard_normal((NUM_ROWS, 384)).astype(np.float32), "price": rng.standard_normal((NUM_ROWS, 6))}
    present = {"text": np.ones(NUM_ROWS, bool), "price": rng.random(NUM_ROWS) < 0.5}
    return Fusion.fit(vectors, present, FusionConfig(weights=(("text", 1.0, 100), ("price", 0.5, 3)))), vectors, present


@pytest.mark.parametrize("whiten", [False, True])
def test_blocks_are_sklearn_s_pca_up_to_sign_and_scale(whiten):
    vectors, present = modalities()
    fused = Fusion.fit(vectors, present, FusionConfig(weights=CONFIG.weights, whiten=whiten)).transform(vectors, present)
    expected = np.abs(PCA(12, whiten=whiten, svd_solver="full").fit_transform(vectors["text"].astype(np.float64)))
    expected /= np.linalg.norm(expected, axis=1).mean()
    np.testing.assert_allclose(np.abs(fused[:, :12]), expected, atol=1e-5)


def test_mean_norm_of_a_block_is_its_weight(fitted):
    vectors, present = modalities()
    fused = fitted.transform(vectors, present)
    assert np.linalg.norm(fused[:, :12], axis=1).mean() == pytest.approx(1.0, rel=1e-5)
    assert np.linalg.norm(fused[present["behaviour"], 12:], axis=1).mean() == pytest.approx(0.7, rel=1e-5)


def test_missing_modality_is_zero_and_has_no_part_in_the_fit(fitted):
    vectors, present = modalities()
    vectors["behaviour"][~present["behaviour"]] = np.nan
    again = Fusion.fit(vectors, present, CONFIG)
    assert again.fusion_id == fitted.fusion_id
    assert not again.transform(vectors, present)[~present["behaviour"], 12:].any()


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, NUM_ROWS - 1), max_size=8, unique=True))
def test_any_chunking_gives_the_same_bytes(wide, cuts):
    fusion, vectors, present = wide
    whole = fusion.transform(vectors, present)
    edges = [0, *sorted(cuts), NUM_ROWS]
    parts = [
        fusion.transform({m: v[a:b] for m, v in vectors.items()}, {m: p[a:b] for m, p in present.items()})
        for a, b in itertools.pairwise(edges)
    ]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_order_of_rows_gives_the_same_bytes_per_row(wide, seed):
    fusion, vectors, present = wide
    order = np.random.default_rng(seed).permutation(NUM_ROWS)[: 1 + seed % NUM_ROWS]
    shuffled = fusion.transform({m: v[order] for m, v in vectors.items()}, {m: p[order] for m, p in present.items()})
    assert shuffled.tobytes() == fusion.transform(vectors, present)[order].tobytes()


def test_number_of_threads_changes_no_bit():
    rng = np.random.default_rng(0)
    vectors, present = {"text": rng.standard_normal((1500, 384)).astype(np.float32)}, {"text": np.ones(1500, bool)}
    config = FusionConfig(weights=(("text", 1.0, 100),))
    results = []
    for limit in (1, 2):
        with threadpool_limits(limits=limit):
            fusion = Fusion.fit(vectors, present, config)
            results.append((fusion.fusion_id, fusion.transform(vectors, present).tobytes()))
    assert results[0] == results[1]


def test_inverse_returns_the_vectors_when_every_dimension_is_kept():
    vectors, present = modalities()
    present["behaviour"][:] = True
    for whiten in (False, True):
        fusion = Fusion.fit(vectors, present, FusionConfig(weights=(("text", 2.0, 20), ("behaviour", 0.3, 8)), whiten=whiten))
        back = fusion.inverse(fusion.transform(vectors, present))
        for name in vectors:
            np.testing.assert_allclose(back[name], vectors[name], atol=1e-4)


def test_inverse_of_a_missing_modality_is_its_mean(fitted):
    vectors, present = modalities()
    back = fitted.inverse(fitted.transform(vectors, present))["behaviour"][~present["behaviour"]]
    np.testing.assert_allclose(back, np.tile(vectors["behaviour"][present["behaviour"]].mean(axis=0), (len(back), 1)), atol=1e-6)


def test_saved_fusion_loads_as_itself(fitted, tmp_path):
    vectors, present = modalities()
    fitted.save(tmp_path / "fusion.safetensors")
    loaded = Fusion.load(tmp_path / "fusion.safetensors")
    assert loaded.fusion_id == fitted.fusion_id
    assert loaded.config == CONFIG
    assert loaded.transform(vectors, present).tobytes() == fitted.transform(vectors, present).tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["fusion.safetensors"]


def test_every_damaged_byte_is_noticed(fitted, tmp_path):
    fitted.save(tmp_path / "fusion.safetensors")
    whole = (tmp_path / "fusion.safetensors").read_bytes()
    for position in [*range(0, len(whole), 397), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[position] ^= 0x41
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(ArtifactError):
            Fusion.load(tmp_path / "damaged")


@pytest.mark.parametrize("keep", [0, 5, 200, -8])
def test_truncated_file_is_an_artifact_error(fitted, tmp_path, keep):
    fitted.save(tmp_path / "fusion.safetensors")
    whole = (tmp_path / "fusion.safetensors").read_bytes()
    (tmp_path / "fusion.safetensors").write_bytes(whole[:keep])
    with pytest.raises(ArtifactError, match="Fit it again"):
        Fusion.load(tmp_path / "fusion.safetensors")


def test_missing_file_is_an_artifact_error(tmp_path):
    with pytest.raises(ArtifactError, match="nothing-here"):
        Fusion.load(tmp_path / "nothing-here")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("call", ["fit", "transform"])
def test_vector_that_is_not_finite_names_its_row(fitted, value, call):
    vectors, present = modalities()
    vectors["text"][41, 3] = value
    with pytest.raises(EncoderError, match="'text' vector of row 41 is not finite"):
        _ = Fusion.fit(vectors, present, CONFIG) if call == "fit" else fitted.transform(vectors, present)


def test_zero_vectors_are_allowed(fitted):
    vectors, present = modalities()
    vectors["text"][:3] = 0
    assert np.isfinite(Fusion.fit(vectors, present, CONFIG).transform(vectors, present)).all()


@pytest.mark.parametrize("num_rows", [0, 1, 50])
def test_vectors_that_are_all_equal_are_refused(num_rows):
    vectors, present = {"text": np.full((num_rows, 4), 0.3, np.float32)}, {"text": np.ones(num_rows, bool)}
    with pytest.raises(EncoderError, match="no two vectors that differ"):
        Fusion.fit(vectors, present, FusionConfig(weights=(("text", 1.0, 2),)))


def test_more_dimensions_than_the_vectors_have_are_refused():
    vectors, present = modalities()
    with pytest.raises(EncoderError, match="has 20 dims and cannot keep 21"):
        Fusion.fit(vectors, present, FusionConfig(weights=(("text", 1.0, 21),)))


@pytest.mark.parametrize("whiten", [False, True])
def test_directions_without_variance_stay_zero(whiten):
    rng = np.random.default_rng(0)
    vectors = {"text": (rng.standard_normal((40, 2)) @ rng.standard_normal((2, 6))).astype(np.float32)}
    fusion = Fusion.fit(vectors, {"text": np.ones(40, bool)}, FusionConfig(weights=(("text", 1.0, 6),), whiten=whiten))
    assert np.abs(fusion.transform(vectors, {"text": np.ones(40, bool)})[:, 2:]).max() < 1e-5


def test_missing_modality_or_mask_is_a_value_error(fitted):
    vectors, present = modalities()
    with pytest.raises(ValueError, match="'behaviour' is in the config"):
        fitted.transform({"text": vectors["text"]}, present)
    with pytest.raises(ValueError, match="bool mask"):
        fitted.transform(vectors, {**present, "text": np.ones(3, bool)})


def test_other_width_than_fitted_is_a_value_error(fitted):
    vectors, present = modalities()
    with pytest.raises(ValueError, match="fitted on 20 dims, got 19"):
        fitted.transform({**vectors, "text": vectors["text"][:, :19]}, present)


@pytest.mark.parametrize("weights", [(), (("a", 0.0, 2),), (("a", np.nan, 2),), (("a", 1.0, 0),), (("a", 1.0, 2), ("a", 1.0, 2))])
def test_config_out_of_range_is_a_value_error(weights):
    with pytest.raises(ValueError, match=r"weight|dim"):
        FusionConfig(weights=weights)


@pytest.mark.parametrize("num_rows", [1, 2, 16, 100])
def test_product_of_few_rows_keeps_the_bits_of_the_product_of_many(num_rows):
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((256, 384)), rng.standard_normal((384, 100))
    assert np.array_equal(_fixed_product(left[7 : 7 + num_rows], right), _fixed_product(left, right)[7 : 7 + num_rows])
