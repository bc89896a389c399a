"""Sums over counts whose bits no number of threads, order of rows or BLAS can change: what they give is part of a release's hash.

A dot product of a hundred thousand shares is cut into one piece per thread, and each cut rounds otherwise. Here equal counts are
one term, terms come in ascending order of the count, and `math.fsum` adds them without rounding in between.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["entropy_of_counts", "mean_chance"]


def entropy_of_counts(sizes: npt.NDArray[np.integer[Any]], times: npt.NDArray[np.integer[Any]] | None = None) -> float:
    """Return −Σ p·ln p in nats of groups of these sizes, each as often as `times` says (or once).

    Raises ValueError where no group has an item.

    >>> round(entropy_of_counts(np.array([2, 0, 1, 1])), 4)
    1.0397
    """
    values, numbers = _histogram(sizes) if times is None else (sizes.tolist(), times.tolist())
    total = sum(value * number for value, number in zip(values, numbers, strict=True))
    if not total:
        msg = f"the entropy of {len(sizes)} groups without an item is undefined; pass at least 1 item"
        raise ValueError(msg)
    terms = (number * value / total * math.log(value / total) for value, number in zip(values, numbers, strict=True) if value)
    return max(0.0, -math.fsum(terms))


def mean_chance(share: float, chances: npt.NDArray[np.integer[Any]]) -> float:
    """Return the mean of 1 − (1 − share)^c over `chances` c, whole numbers >= 0; NaN where there are none.

    >>> mean_chance(0.5, np.array([1, 2]))
    0.625
    """
    if not len(chances):
        return float("nan")
    values, numbers = _histogram(chances)
    return math.fsum(number * (1.0 - (1.0 - share) ** value) for value, number in zip(values, numbers, strict=True)) / len(chances)


def _histogram(values: npt.NDArray[np.integer[Any]]) -> tuple[list[int], list[int]]:
    found, numbers = np.unique(values, return_counts=True)
    return found.tolist(), numbers.tolist()
