"""The mean square of many values, in blocks: a table of float64 squares is twice as large as the table itself.

Shape suffixes: N rows, D dimensions.
"""

from __future__ import annotations

import math

import numpy as np

from sidlake.tokenizers.numeric.nearest import Float32Array, Float64Array

__all__ = ["mean_square"]

_BLOCK_ROWS = 16_384


def mean_square(x_ND: Float32Array, centre_D: Float32Array | Float64Array | float = 0.0) -> float:
    """Return the mean over rows and dimensions of ``(x - centre) ** 2``, in float64: blocks' sums in order, then their exact sum.

    Memory: 24 bytes per value of 16,384 rows.

    >>> mean_square(np.float32([[1], [3]]), 1.0)
    2.0
    """
    sums = []
    for start in range(0, len(x_ND), _BLOCK_ROWS):
        part_BD = x_ND[start : start + _BLOCK_ROWS].astype(np.float64)
        part_BD -= centre_D
        sums.append(float(np.square(part_BD, out=part_BD).sum()))
    return math.fsum(sums) / x_ND.size
