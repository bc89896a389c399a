from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.quality.metrics.fidelity import ReconstructionError, relative_reconstruction_error

seeds = st.integers(0, 2**32 - 1)


def vectors(seed: int, *, offset: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(50, 4)) + offset).astype(np.float32)


def test_error_of_two_points_matches_the_hand_computed_value():
    x_ND = np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    reconstruction_ND = np.array([[0.0, 1.0], [2.0, 0.0], [3.0, 0.0]])
    assert relative_reconstruction_error(x_ND, reconstruction_ND) == pytest.approx(2 / 8)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_the_mean_scores_one_and_the_vectors_themselves_zero(seed):
    x_ND = vectors(seed)
    mean_ND = np.broadcast_to(x_ND.astype(np.float64).mean(axis=0), x_ND.shape)
    assert relative_reconstruction_error(x_ND, mean_ND) == pytest.approx(1.0)
    assert relative_reconstruction_error(x_ND, x_ND) == 0.0


@given(seeds, st.lists(st.integers(0, 50), max_size=5))
@settings(max_examples=60, deadline=None)
def test_batches_of_any_size_give_the_error_of_the_whole(seed, cuts):
    x_ND = vectors(seed, offset=100.0)
    near_ND, far_ND = x_ND + np.float32(0.1), x_ND * np.float32(0.5)
    error = ReconstructionError(2)
    for batch in np.split(np.arange(len(x_ND)), sorted(cuts)):
        error.update(x_ND[batch], [near_ND[batch], far_ND[batch]])
    spread = np.square(x_ND - x_ND.astype(np.float64).mean(axis=0)).sum()
    expected = [np.square(x_ND.astype(np.float64) - r).sum() / spread for r in (near_ND, far_ND)]
    assert error.finalize() == pytest.approx(expected, rel=1e-9)


def test_identical_vectors_have_no_defined_error():
    x_ND = np.full((7, 3), 0.1, dtype=np.float32)
    assert np.isnan(relative_reconstruction_error(x_ND, x_ND + 1))


def test_no_item_is_refused():
    error = ReconstructionError(1)
    error.update(np.zeros((0, 2)), [np.zeros((0, 2))])
    with pytest.raises(ValueError, match="0 items"):
        error.finalize()


def test_a_reconstruction_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="expected 1 reconstructions"):
        ReconstructionError(1).update(np.zeros((2, 2)), [np.zeros((2, 1))])


def test_at_least_one_reconstruction_is_required():
    with pytest.raises(ValueError, match=">= 1"):
        ReconstructionError(0)
