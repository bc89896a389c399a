import numpy as np
import pytest
from scipy.linalg import block_diag, eigh

from sidlake.encoders.fusion.alignment import canonical_axes, least_squares_inverse, rotations

SPANS = [slice(0, 5), slice(5, 9), slice(9, 12)]


def covariance(seed=0):
    rows = np.random.default_rng(seed).standard_normal((400, 6)) @ np.random.default_rng(seed + 1).standard_normal((6, 12))
    rows += 0.5 * np.random.default_rng(seed + 2).standard_normal((400, 12))
    return np.cov(rows.T, bias=True)


@pytest.mark.parametrize("num_modalities", [2, 3])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_canonical_axes_are_scipy_s_generalised_eigenvectors(num_modalities, ridge):
    spans = SPANS[:num_modalities]
    size = spans[-1].stop
    full = covariance()[:size, :size]
    own = [full[s, s] + ridge * np.trace(full[s, s]) / (s.stop - s.start) * np.eye(s.stop - s.start) for s in spans]
    together = full + block_diag(*own) - block_diag(*(full[s, s] for s in spans))
    _, vectors = eigh(together, block_diag(*own))
    found = canonical_axes(full, spans, dim=3, ridge=ridge)
    np.testing.assert_allclose(np.abs(found), np.abs(vectors[:, ::-1][:, :3]), atol=1e-8)


def test_rotations_keep_lengths_and_turn_what_was_turned_back():
    rng = np.random.default_rng(0)
    goal = rng.standard_normal((300, 4))
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    both = np.hstack([goal @ turn, goal])
    found = rotations(both.T @ both, [slice(0, 4), slice(4, 8)], 1)
    np.testing.assert_allclose(found[:4], turn.T, atol=1e-10)
    np.testing.assert_allclose(found[4:], np.eye(4))


def test_a_larger_modality_is_projected_and_a_smaller_one_embedded():
    for sizes, target in (((6, 3), 1), ((3, 6), 1)):
        rows = np.random.default_rng(0).standard_normal((100, 9))
        spans = [slice(0, sizes[0]), slice(sizes[0], 9)]
        turned = rotations(rows.T @ rows, spans, target)[spans[0]]
        assert turned.shape == sizes
        small = turned if sizes[0] < sizes[1] else turned.T
        np.testing.assert_allclose(small @ small.T, np.eye(3), atol=1e-10)


def test_least_squares_inverse_has_no_part_in_directions_without_variance():
    second = np.diag([2.0, 1.0, 0.0])
    np.testing.assert_allclose(least_squares_inverse(second, np.eye(3)), np.diag([1.0, 1.0, 0.0]), atol=1e-12)
