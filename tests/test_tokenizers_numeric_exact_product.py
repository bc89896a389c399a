"""The product that no blocking, no thread and no neighbour changes, and that is as exact as float64's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.tokenizers.numeric.exact_product import exact_product


def factors(seed, n=300, d=96, e=40):
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.integers(-6, 7, size=(n, 1))
    return (rng.normal(size=(n, d)) * scales).astype(np.float32), rng.normal(size=(d, e)).astype(np.float32)


def test_entries_are_right_to_ten_digits_of_the_factors_lengths():
    x, y = factors(0)
    true = (x.astype(np.longdouble) @ y.astype(np.longdouble)).astype(np.float64)
    lengths = np.linalg.norm(x, axis=1)[:, None].astype(np.float64) * np.linalg.norm(y, axis=0)
    assert (np.abs(exact_product(x, y) - true) <= 1e-10 * lengths).all()


def test_whole_numbers_come_out_whole():
    rng = np.random.default_rng(1)
    x, y = rng.integers(-1000, 1000, (50, 20)), rng.integers(-1000, 1000, (20, 30))
    assert np.array_equal(exact_product(x, y), x @ y)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.data())
def test_rows_alone_in_parts_or_shuffled_give_the_same_bits(seed, data):
    x, y = factors(seed, n=40, d=17, e=5)
    order = np.array(data.draw(st.permutations(range(len(x)))))
    whole = exact_product(x, y)
    assert np.array_equal(exact_product(x[order], y), whole[order])
    assert np.array_equal(np.concatenate([exact_product(x[row : row + 1], y) for row in range(len(x))]), whole)


def test_columns_turned_round_give_the_same_bits():
    x, y = factors(2)
    assert np.array_equal(exact_product(y.T, x.T), exact_product(x, y).T)


def test_the_order_of_the_terms_does_not_change_a_bit():
    x, y = factors(3, d=333)
    order = np.random.default_rng(0).permutation(333)
    assert np.array_equal(exact_product(x[:, order], y[order]), exact_product(x, y))


def test_rows_of_zeros_give_zeros():
    assert not exact_product(np.zeros((3, 4)), np.ones((4, 2))).any()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="cannot multiply"):
        exact_product(np.ones((3, 4)), np.ones((5, 2)))
