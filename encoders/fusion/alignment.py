"""Closed-form maps from modalities side by side to one space: principal axes, canonical correlation, rotation onto one of them.

All of them need second moments alone, so they cost one pass over the rows. Canonical correlation is solved in its MAXVAR form
(Kettenring 1971), which for two modalities is Hotelling's and for more finds the direction that all agree on best. A rotation
(orthogonal Procrustes, Schönemann 1966) is the linear form of aligning modalities by contrast: it keeps how a modality's own
rows spread, which is what negatives are for, and brings the same item's vectors as near as a rotation can, which is what
positives are for (Wang & Isola, arXiv 2005.10242).

Signs: the largest entry of an axis is positive. Shapes: S dims of all modalities, side by side in spans; D of the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["canonical_axes", "least_squares_inverse", "principal_axes", "rotations"]

Matrix = NDArray[np.float64]

_TINY = 1e-10  # directions below this share of the largest variance are rounding noise


def principal_axes(second_SS: Matrix, dim: int) -> Matrix:
    """Return the `dim` directions [S, dim] of most variance, most first, each of length one.

    >>> principal_axes(np.diag([1.0, 4.0]), 1).tolist()
    [[0.0], [1.0]]
    """
    _, axes = np.linalg.eigh(second_SS)
    return _signed(axes[:, ::-1][:, :dim])


def canonical_axes(covariance_SS: Matrix, spans: Sequence[slice], *, dim: int, ridge: float) -> Matrix:
    """Return the map [S, dim] to canonical variates, added up over modalities, in falling order of agreement.

    Each modality's own covariance is whitened, with `ridge` times its mean variance added in every direction; the direction of
    rank i then has variance (1 + correlation i), for two modalities whose variates are each divided by √2.
    """
    whitener_SS = np.zeros_like(covariance_SS)
    for span in spans:
        own = covariance_SS[span, span]
        whitener_SS[span, span] = _inverse_root(own + ridge * np.trace(own) / len(own) * np.eye(len(own)))
    agreement_SS = whitener_SS @ covariance_SS @ whitener_SS
    for span in spans:
        agreement_SS[span, span] = np.eye(span.stop - span.start)
    return whitener_SS @ principal_axes((agreement_SS + agreement_SS.T) / 2, dim)


def rotations(second_SS: Matrix, spans: Sequence[slice], target: int) -> Matrix:
    """Return the map [S, K] that turns each modality into the space of the one at `target`, whose own part is the identity.

    Of all rotations it takes the one with the largest mean inner product of an item's vectors (orthogonal Procrustes); for a
    modality of more dims than the target the largest of its projections, for one of fewer an embedding.
    """
    goal = spans[target]
    turned_SK = np.zeros((len(second_SS), goal.stop - goal.start))
    for span in spans:
        left, _, right = np.linalg.svd(second_SS[span, goal], full_matrices=False)
        turned_SK[span] = left @ right
    turned_SK[goal] = np.eye(goal.stop - goal.start)
    return turned_SK


def least_squares_inverse(second_SS: Matrix, joint_SD: Matrix) -> Matrix:
    """Return the map [D, S] that takes fused rows to the rows that fused to them, at the least mean square error.

    `second_SS` are the second moments of those rows; directions without variance come back as zeros.
    """
    across_DS = joint_SD.T @ second_SS
    inverse: Matrix = np.linalg.pinv(across_DS @ joint_SD, rcond=_TINY, hermitian=True) @ across_DS
    return inverse


def _inverse_root(matrix_KK: Matrix) -> Matrix:
    values, axes = np.linalg.eigh(matrix_KK)
    usable = values > _TINY * values[-1]
    root: Matrix = (axes * np.where(usable, 1 / np.sqrt(np.where(usable, values, 1.0)), 0.0)) @ axes.T
    return root


def _signed(axes_SD: Matrix) -> Matrix:
    largest = np.argmax(np.abs(axes_SD), axis=0)
    signed: Matrix = axes_SD * np.where(axes_SD[largest, np.arange(axes_SD.shape[1])] < 0, -1.0, 1.0)
    return signed
