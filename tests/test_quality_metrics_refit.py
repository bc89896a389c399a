"""Refitted codebooks: the least-squares solution, and what it may not be mistaken for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.quality.metrics.fidelity import relative_reconstruction_error
from sidlake.quality.metrics.refit import held_out_error, refit_codebooks


def one_hot(codes_NL, widths):
    return np.concatenate([np.eye(width)[codes_NL[:, level]] for level, width in enumerate(widths)], axis=1)


def drawn(seed, num_items=60, widths=(4, 3, 5), dim=6):
    rng = np.random.default_rng(seed)
    codes_NL = np.stack([rng.integers(0, width, num_items) for width in widths], axis=1)
    return codes_NL, rng.normal(size=(num_items, dim)).astype(np.float32) + 3.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(4,), (4, 3), (4, 3, 5), (2, 2, 2, 2, 2)]))
def test_the_reconstruction_is_that_of_least_squares_on_one_hot_codes(seed, widths):
    codes_NL, x_ND = drawn(seed, widths=widths)
    design = one_hot(codes_NL, widths)
    expected_ND = design @ np.linalg.lstsq(design, x_ND.astype(np.float64), rcond=None)[0]
    found = refit_codebooks(codes_NL, widths, x_ND, tolerance=1e-14, max_sweeps=2000)
    np.testing.assert_allclose(found.decode(codes_NL), expected_ND, atol=1e-4)
    assert found.converged
    assert found.relative_error == pytest.approx(relative_reconstruction_error(x_ND, expected_ND), abs=1e-9)


def test_vectors_that_codebooks_made_are_recovered():
    codes_NL, _ = drawn(0, num_items=200)
    rng = np.random.default_rng(1)
    books = [rng.normal(size=(width, 6)) for width in (4, 3, 5)]
    x_ND = sum(book[codes_NL[:, level]] for level, book in enumerate(books))
    found = refit_codebooks(codes_NL, (4, 3, 5), x_ND, tolerance=1e-15, max_sweeps=500)
    np.testing.assert_allclose(found.decode(codes_NL), x_ND, atol=1e-5)
    assert found.relative_error < 1e-12


def test_one_level_gives_the_means_and_zero_for_codes_without_items():
    x_ND = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    found = refit_codebooks(np.array([[1], [1], [3]]), (5,), x_ND)
    assert found.codebooks[0].tolist() == [[0, 0], [2, 0], [0, 0], [0, 4], [0, 0]]


def test_a_prefix_decodes_to_the_sum_of_its_levels():
    codes_NL, x_ND = drawn(2)
    found = refit_codebooks(codes_NL, (4, 3, 5), x_ND)
    expected = found.codebooks[0][codes_NL[:, 0]] + found.codebooks[1][codes_NL[:, 1]]
    np.testing.assert_allclose(found.decode(codes_NL[:, :2]), expected, atol=1e-6)


def test_equal_codes_decode_to_the_same_bits():
    codes_NL, x_ND = drawn(3, num_items=500)
    decoded = refit_codebooks(codes_NL, (4, 3, 5), x_ND).decode(codes_NL)
    assert len(np.unique(decoded, axis=0)) == len(np.unique(codes_NL, axis=0)) < 500


def test_the_order_of_rows_does_not_matter():
    codes_NL, x_ND = drawn(4)
    order = np.random.default_rng(5).permutation(len(x_ND))
    found = refit_codebooks(codes_NL, (4, 3, 5), x_ND)
    again = refit_codebooks(codes_NL[order], (4, 3, 5), x_ND[order])
    for one, other in zip(found.codebooks, again.codebooks, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_too_few_sweeps_are_reported_as_not_converged():
    codes_NL, x_ND = drawn(6)
    found = refit_codebooks(codes_NL, (4, 3, 5), x_ND, tolerance=0.0, max_sweeps=2)
    assert (found.num_sweeps, found.converged) == (2, False)


def test_codes_that_mean_nothing_fit_in_sample_and_fail_on_items_left_out():
    rng = np.random.default_rng(7)
    x_ND = rng.normal(size=(300, 8))
    codes_NL = rng.integers(0, 16, size=(300, 8))
    assert refit_codebooks(codes_NL, (16,) * 8, x_ND).relative_error < 0.7
    assert held_out_error(codes_NL, (16,) * 8, x_ND) > 1.0


def test_codes_of_clusters_tell_of_items_left_out():
    rng = np.random.default_rng(8)
    codes_NL = rng.integers(0, 10, size=(400, 1))
    x_ND = rng.normal(size=(10, 8))[codes_NL[:, 0]] + 0.1 * rng.normal(size=(400, 8))
    fitted = refit_codebooks(codes_NL, (10,), x_ND).relative_error
    assert fitted < held_out_error(codes_NL, (10,), x_ND) < 1.2 * fitted


def test_left_out_items_are_reconstructed_from_the_others_alone():
    """By hand: two items of one code, two folds: each is reconstructed by the other, so the error is 4 · spread."""
    x_ND = np.array([[0.0], [2.0]])
    assert held_out_error(np.array([[0], [0]]), (1,), x_ND, num_folds=2) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("codes", "widths", "x", "says"),
    [
        ([[0, 1]], (2,), [[1.0]], "expected codes"),
        ([[0]], (2,), [[1.0], [2.0]], "expected codes"),
        ([[2]], (2,), [[1.0]], "codes range over"),
        ([[-1]], (2,), [[1.0]], "codes range over"),
        ([[1]], (2,), [[np.nan]], "must be finite"),
    ],
)
def test_bad_arguments_are_named(codes, widths, x, says):
    with pytest.raises(ValueError, match=says):
        refit_codebooks(np.array(codes), widths, np.array(x))


def test_folds_need_two_parts_and_no_more_than_there_are_items():
    for num_folds in (1, 4):
        with pytest.raises(ValueError, match="num_folds must lie in"):
            held_out_error(np.array([[0], [0], [1]]), (2,), np.eye(3), num_folds=num_folds)
