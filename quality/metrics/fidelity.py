"""How much of the vectors their semantic IDs keep: the relative reconstruction error.

For each reconstruction r of the vectors x: Σ‖x − r‖² / Σ‖x − x̄‖², both sums over the same items, x̄ their mean. 0 is a perfect
reconstruction, 1 is what the mean alone achieves, above 1 is worse than no codes at all. The denominator is centred, so adding a
constant to all vectors and reconstructions changes nothing. Sums run in float64, batch after batch, in the order given: another
cut into batches changes the result by rounding only. Not done here: decoding (the caller passes reconstructions).

Shapes: N items, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ReconstructionError", "relative_reconstruction_error"]

_NO_VARIANCE = 1e-28  # Σ‖x − x̄‖² / Σ‖x‖² below which float64 cannot tell the vectors apart; float32 vectors that differ stay above


class ReconstructionError:
    """Accumulates the relative reconstruction error of `num_reconstructions` reconstructions of the same vectors, batch by batch.

    Memory: O(D), plus two float64 copies of a batch during `update`.
    """

    def __init__(self, num_reconstructions: int) -> None:
        if num_reconstructions < 1:
            msg = f"num_reconstructions must be >= 1, got {num_reconstructions}"
            raise ValueError(msg)
        self._errors = np.zeros(num_reconstructions, dtype=np.float64)
        self._num_items = 0
        self._mean: npt.NDArray[np.float64] | None = None
        self._spread = 0.0  # Σ‖x − x̄‖² so far
        self._square = 0.0  # Σ‖x‖² so far

    def update(self, x_ND: npt.NDArray[np.floating[Any]], reconstructions: Sequence[npt.NDArray[np.floating[Any]]]) -> None:
        """Add a batch: `reconstructions` holds one (N, D) array per reconstruction, in the same order each time."""
        if len(reconstructions) != len(self._errors) or any(r.shape != x_ND.shape for r in reconstructions):
            msg = f"expected {len(self._errors)} reconstructions of shape {x_ND.shape}, got {[r.shape for r in reconstructions]}"
            raise ValueError(msg)
        if x_ND.ndim != 2:
            msg = f"vectors must have shape (items, dimensions), got {x_ND.shape}"
            raise ValueError(msg)
        if not len(x_ND):
            return
        wide_ND = x_ND.astype(np.float64)
        self._errors += [float(np.square(wide_ND - r_ND).sum()) for r_ND in reconstructions]
        self._add_spread(wide_ND)

    def _add_spread(self, x_ND: npt.NDArray[np.float64]) -> None:
        """Merge the batch's variance into the running one (Chan, Golub & LeVeque 1979), which does not cancel on far-off means."""
        count, mean_D = len(x_ND), x_ND.mean(axis=0)
        self._square += float(np.square(x_ND).sum())
        self._spread += float(np.square(x_ND - mean_D).sum())
        if self._mean is not None:
            total = self._num_items + count
            delta_D = mean_D - self._mean
            self._spread += float(delta_D @ delta_D) * self._num_items * count / total
            mean_D = self._mean + delta_D * (count / total)
        self._mean = mean_D
        self._num_items += count

    def finalize(self) -> tuple[float, ...]:
        """Return the relative error of each reconstruction; NaN where the vectors do not vary, for which it is undefined.

        Raises ValueError when no item was added.
        """
        if self._num_items == 0:
            msg = "the relative reconstruction error of 0 items is undefined; add at least 1 batch"
            raise ValueError(msg)
        if self._spread <= _NO_VARIANCE * self._square:
            return tuple(float("nan") for _ in self._errors)
        return tuple(float(error) / self._spread for error in self._errors)


def relative_reconstruction_error(x_ND: npt.NDArray[np.floating[Any]], reconstruction_ND: npt.NDArray[np.floating[Any]]) -> float:
    """Return Σ‖x − r‖² / Σ‖x − x̄‖² of one reconstruction held in memory; NaN where the vectors do not vary.

    >>> relative_reconstruction_error(np.array([[0.0], [2.0]]), np.array([[0.0], [1.0]]))
    0.5
    """
    error = ReconstructionError(1)
    error.update(x_ND, [reconstruction_ND])
    return error.finalize()[0]
