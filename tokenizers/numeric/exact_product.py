"""A matrix product whose bits depend on its rows and columns alone: not on their neighbours, the blocking, threads or the machine.

BLAS adds in an order that changes with the shape, the threads and the processor. So the factors are scaled to whole numbers so
small that every sum is exact in float64, in any order (Ozaki et al. 2012, Numerical Algorithms 59): a leading part of b bits per
row or column, and b more bits of what that leaves. The product of the two remainders is dropped: with 128 terms b is 23 and the
error at most 128 × 2**-46 of the largest entries' product, far below what float32 factors know.

Shape suffixes: N rows, D terms of a sum, E columns.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.numeric.nearest import Float32Array, Float64Array

__all__ = ["exact_product"]

_BLOCK_ROWS = 16_384


def exact_product(x_ND: npt.NDArray[np.floating], y_DE: npt.NDArray[np.floating]) -> Float64Array:
    """Return ``x @ y``, float64 [N, E]; each entry depends on its row of `x` and its column of `y` alone, bit for bit.

    Three float64 products in time, 32 bytes per value of a block of 16,384 rows in memory. `ValueError` for shapes that do not
    fit.

    >>> exact_product(np.array([[1.0, 2.0]]), np.array([[3.0], [0.5]])).tolist()
    [[4.0]]
    """
    x, y = np.asarray(x_ND), np.asarray(y_DE)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != len(y) or not len(y):
        msg = f"cannot multiply shapes {x.shape} and {y.shape}"
        raise ValueError(msg)
    bits = (53 - math.ceil(math.log2(len(y)))) // 2
    whole_ED, rest_ED, exponent_E = _parts(y.T, bits)
    product = np.empty((len(x), y.shape[1]))
    for start in range(0, len(x), _BLOCK_ROWS):
        whole_BD, rest_BD, exponent_B = _parts(x[start : start + _BLOCK_ROWS], bits)
        # The remainders are half a unit at most, so that both cross terms together stay exact.
        cross_BE = rest_BD @ whole_ED.T + whole_BD @ rest_ED.T
        total_BE = whole_BD @ whole_ED.T + cross_BE * 2.0**-bits
        total_BE *= np.ldexp(1.0, exponent_B - bits)[:, None]
        total_BE *= np.ldexp(1.0, exponent_E - bits)
        product[start : start + _BLOCK_ROWS] = total_BE
    return product


def _parts(x_ND: npt.NDArray[np.floating] | Float32Array, bits: int) -> tuple[Float64Array, Float64Array, npt.NDArray[np.intc]]:
    """Return whole numbers of `bits` bits, what they leave in units of 2**-bits, and the exponents: x = 2**(e - bits) (w + r)."""
    x_64 = x_ND.astype(np.float64)
    exponent_N = np.frexp(np.abs(x_64).max(axis=1, initial=0.0))[1]
    scaled_ND = x_64 * np.ldexp(1.0, bits - exponent_N)[:, None]
    whole_ND = np.rint(scaled_ND)
    rest_ND = np.rint((scaled_ND - whole_ND) * 2.0**bits)
    return whole_ND, rest_ND, exponent_N
