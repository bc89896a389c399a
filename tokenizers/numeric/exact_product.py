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

from sidlake.tokenizers.numeric.nearest import Float64Array

__all__ = ["exact_product"]

Exponents = npt.NDArray[np.intc]

_BLOCK = 16_384  # rows, and terms of a sum, at a time


def exact_product(x_ND: npt.NDArray[np.floating], y_DE: npt.NDArray[np.floating]) -> Float64Array:
    """Return ``x @ y``, float64 [N, E]; each entry depends on its row of `x` and its column of `y` alone, bit for bit.

    Three float64 products in time. Memory beside the result: 32 bytes per value of 16,384 rows of either factor, or of as many
    terms of longer sums. `ValueError` for shapes that do not fit.

    >>> exact_product(np.array([[1.0, 2.0]]), np.array([[3.0], [0.5]])).tolist()
    [[4.0]]
    """
    x, y = np.asarray(x_ND), np.asarray(y_DE)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != len(y) or not len(y):
        msg = f"cannot multiply shapes {x.shape} and {y.shape}"
        raise ValueError(msg)
    bits = (53 - math.ceil(math.log2(len(y)))) // 2
    exponent_E = _exponents(y.T)
    product = np.empty((len(x), y.shape[1]))
    for start in range(0, len(x), _BLOCK):
        rows = x[start : start + _BLOCK]
        exponent_B = _exponents(rows)
        total_BE = _whole_product(rows, y.T, bits, (exponent_B, exponent_E))
        total_BE *= np.ldexp(1.0, exponent_B - bits)[:, None]
        total_BE *= np.ldexp(1.0, exponent_E - bits)
        product[start : start + _BLOCK] = total_BE
    return product


def _whole_product(
    x_BD: npt.NDArray[np.floating], y_ED: npt.NDArray[np.floating], bits: int, exponents: tuple[Exponents, Exponents]
) -> Float64Array:
    """Return the product [B, E] of the factors in units of 2**(bits - exponent): two sums of whole numbers, exact in any order."""
    whole_BE, cross_BE = (np.zeros((len(x_BD), len(y_ED))) for _ in range(2))
    for start in range(0, x_BD.shape[1], _BLOCK):
        terms = slice(start, start + _BLOCK)
        left_BT, left_rest_BT = _parts(x_BD[:, terms], bits, exponents[0])
        right_ET, right_rest_ET = _parts(y_ED[:, terms], bits, exponents[1])
        whole_BE += left_BT @ right_ET.T
        # The remainders are half a unit at most, so that both cross terms together stay exact.
        cross_BE += left_rest_BT @ right_ET.T + left_BT @ right_rest_ET.T
    return whole_BE + cross_BE * 2.0**-bits


def _exponents(x_ND: npt.NDArray[np.floating]) -> Exponents:
    """Return per row the exponent of two above its largest value."""
    largest_N = np.maximum(x_ND.max(axis=1, initial=0.0), -x_ND.min(axis=1, initial=0.0))  # no copy, which an abs would be
    exponent_N: Exponents = np.frexp(largest_N.astype(np.float64))[1]
    return exponent_N


def _parts(x_ND: npt.NDArray[np.floating], bits: int, exponent_N: Exponents) -> tuple[Float64Array, Float64Array]:
    """Return whole numbers of `bits` bits and what they leave in units of 2**-bits: x = 2**(e - bits) (w + r)."""
    scaled_ND = x_ND.astype(np.float64)
    scaled_ND *= np.ldexp(1.0, bits - exponent_N)[:, None]
    whole_ND = np.rint(scaled_ND)
    scaled_ND -= whole_ND
    scaled_ND *= 2.0**bits
    return whole_ND, np.rint(scaled_ND, out=scaled_ND)
