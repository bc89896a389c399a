"""Item vectors from what the same users do next to each other: shifted positive PMI of co-occurrence, then a truncated SVD.

Two items co-occur when one user touches both within `window` events. The matrix max(0, log(n_ij·n / (n_i·n_j)) − log(negatives))
is what skip-gram with negative sampling factorises (Levy & Goldberg, NeurIPS 2014); its rows, projected on the top singular
vectors and scaled by the square root of the singular values, are the vectors. Counts are whole numbers, so no order of users
changes them; BLAS runs on one thread, so no number of threads changes the factorisation.

Deliberately not done: event weights, time decay, users' vectors, and any look at events outside those passed in. Leave out what
comes after the split, or the vectors leak the future.

Shapes: N events, I items, P present items, D dim.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import eigsh
from threadpoolctl import threadpool_limits

__all__ = ["BehaviourConfig", "BehaviourEmbedding", "behaviour_id", "fit_behaviour"]

# Below this share of the longest vector a row is rounding noise: its component of the graph is not among the top directions.
_NOISE = 1e-6
# Beside a long tail of items that two users touched, the few that all touch are sixty times as long as most (100,000 items drawn by
# Zipf's law) and would decide a fusion's scale, which refuses them. Longest of real ones: 2.3 times (shop), 4.7 (Amazon Beauty).
_LONGEST = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BehaviourConfig:
    """How to embed behaviour.

    Attributes:
        dim: of the vectors at most.
        window: events of one user at most so many positions apart count as a pair.
        min_count: the fewest events of an item that gets a vector.
        negatives: shift of the PMI: above 1, pairs must be more than chance by this factor to count.
        seed: of the start of the factorisation.
    """

    dim: int = 128
    window: int = 5
    min_count: int = 3
    negatives: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dim", "window", "min_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.negatives > 0:
            raise ValueError(f"negatives must be above 0, got {self.negatives}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BehaviourEmbedding:
    """Vectors float32 [I, D] and which items have one, bool [I]; the others are zero. Singular values float64, falling."""

    vectors_ID: NDArray[np.float32]
    present_I: NDArray[np.bool_]
    singular_values: NDArray[np.float64]


def behaviour_id(config: BehaviourConfig, digest: str) -> str:
    """Return the encoder id of vectors fitted with `config` on the interactions whose hash is `digest`.

    >>> behaviour_id(BehaviourConfig(), "ab12")
    'behaviour:ppmi-svd:d94c1c97aed8'
    """
    settings = json.dumps({"config": asdict(config), "digest": digest}, sort_keys=True)
    return f"behaviour:ppmi-svd:{hashlib.sha256(settings.encode()).hexdigest()[:12]}"


def fit_behaviour(
    user_index_N: NDArray[np.integer],
    item_index_N: NDArray[np.integer],
    num_items: int,
    config: BehaviourConfig,
) -> BehaviourEmbedding:
    """Return the vectors of `num_items` items from N events; each user's events come in time order, users in any order or mixed.

    Bit-identical for any order of users and any number of BLAS threads. A row longer than ten times the usual (the median) is
    shortened to that. If fewer than `dim` directions exist the last columns are zero. Memory: 12 bytes per distinct ordered pair
    (at most ``2 * window * N``), held about three times, and 16 * dim per item.

    Raises:
        ValueError: arrays of different length or not of whole numbers, or an item index outside 0..num_items-1.
    """
    _check(user_index_N, item_index_N, num_items)
    order_N = np.argsort(user_index_N, kind="stable")
    counts_II = _cooccurrence(user_index_N[order_N], item_index_N[order_N], num_items, config)
    ppmi_II = _ppmi(counts_II, config.negatives)
    linked = np.flatnonzero(np.diff(ppmi_II.indptr))
    left_PD, singular_values = _truncated_svd(ppmi_II[linked][:, linked], config)
    compact_PD = left_PD * np.sqrt(singular_values)
    norm_P = np.sqrt(np.einsum("pd,pd->p", compact_PD, compact_PD))
    kept_P = norm_P > _NOISE * norm_P.max(initial=0.0)
    if kept_P.any():
        compact_PD *= np.minimum(1.0, _LONGEST * np.median(norm_P[kept_P]) / np.maximum(norm_P, np.finfo(float).tiny))[:, None]
    vectors_ID = np.zeros((num_items, config.dim), dtype=np.float32)
    vectors_ID[linked[kept_P], : compact_PD.shape[1]] = compact_PD[kept_P]
    present_I = np.zeros(num_items, dtype=np.bool_)
    present_I[linked[kept_P]] = True
    return BehaviourEmbedding(vectors_ID=vectors_ID, present_I=present_I, singular_values=singular_values)


def _check(user_index_N: NDArray[np.integer], item_index_N: NDArray[np.integer], num_items: int) -> None:
    if num_items < 1:
        raise ValueError(f"num_items must be at least 1, got {num_items}")
    if user_index_N.ndim != 1 or user_index_N.shape != item_index_N.shape:
        raise ValueError(
            f"user and item indices must be two columns of one length, got {user_index_N.shape} and {item_index_N.shape}"
        )
    for name, column in (("user_index_N", user_index_N), ("item_index_N", item_index_N)):
        if not np.issubdtype(column.dtype, np.integer):
            raise ValueError(f"{name} must hold whole numbers, got {column.dtype}")
    if item_index_N.size and not (item_index_N.min() >= 0 and item_index_N.max() < num_items):
        raise ValueError(f"item indices must lie in 0..{num_items - 1}, got {item_index_N.min()}..{item_index_N.max()}")


def _cooccurrence(user_N: NDArray[np.integer], item_N: NDArray[np.integer], num_items: int, config: BehaviourConfig) -> csr_array:
    """Return symmetric counts [I, I] of pairs at most `window` events apart in a user's sequence; no item pairs with itself."""
    frequent_I = np.bincount(item_N, minlength=num_items) >= config.min_count
    counts_II = csr_array((num_items, num_items), dtype=np.int64)
    for offset in range(1, config.window + 1):
        first_M, second_M = item_N[:-offset], item_N[offset:]
        kept_M = (user_N[:-offset] == user_N[offset:]) & (first_M != second_M) & frequent_I[first_M] & frequent_I[second_M]
        pair = (first_M[kept_M], second_M[kept_M])
        step_II = coo_array((np.ones(kept_M.sum(), dtype=np.int64), pair), shape=counts_II.shape).tocsr()
        counts_II = counts_II + step_II + step_II.T
    counts_II = csr_array(counts_II)
    counts_II.sort_indices()
    return counts_II


def _ppmi(counts_II: csr_array, negatives: float) -> csr_array:
    """Return max(0, PMI - log(negatives)) of symmetric counts, float64 CSR without stored zeros."""
    pairs = counts_II.tocoo()
    margin_I = np.asarray(counts_II.sum(axis=1), dtype=np.float64).ravel()
    expected = margin_I[pairs.row] * margin_I[pairs.col] / max(margin_I.sum(), 1.0)
    values = np.maximum(np.log(pairs.data / expected) - np.log(negatives), 0.0)
    ppmi_II = coo_array((values, (pairs.row, pairs.col)), shape=counts_II.shape).tocsr()
    ppmi_II.eliminate_zeros()
    return ppmi_II


def _truncated_svd(matrix_PP: csr_array, config: BehaviourConfig) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the top left singular vectors [P, min(D, P)] and values, falling, each column's largest entry made positive.

    The matrix is symmetric, so they are its eigenvectors and the sizes of its eigenvalues: half the products of a general SVD.
    """
    size = matrix_PP.shape[0]
    if size == 0:
        return np.zeros((0, 0)), np.zeros(0)
    with threadpool_limits(limits=1, user_api="blas"):
        if size <= 2 * config.dim:  # ARPACK wants far fewer directions than rows
            values, left = np.linalg.eigh(matrix_PP.toarray())
        else:
            start = np.random.default_rng(config.seed).standard_normal(size)
            values, left = eigsh(matrix_PP, k=config.dim, v0=start, which="LM")
    falling = np.argsort(-np.abs(values), kind="stable")[: config.dim]
    left, values = left[:, falling], np.abs(values[falling])
    largest = np.argmax(np.abs(left), axis=0)
    return left * np.where(left[largest, np.arange(left.shape[1])] < 0, -1.0, 1.0), values
