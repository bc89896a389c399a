"""Bootstrap intervals of a mean over users: users drawn again with replacement, seeded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["bootstrap_interval"]

_RESAMPLES = 500


def bootstrap_interval(gain_U: npt.NDArray[np.float64], *, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Return the bounds within which `level` of the means of users drawn again lie; 8 bytes per user.

    >>> bootstrap_interval(np.ones(10), seed=0)
    (1.0, 1.0)
    """
    rng = np.random.default_rng(seed)
    means = [gain_U[rng.integers(0, len(gain_U), len(gain_U))].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)
