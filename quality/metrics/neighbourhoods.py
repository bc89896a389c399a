"""How well the vectors' neighbourhoods survive in their semantic IDs: shared neighbours, their ranks, and shared prefixes.

Jaccard@k compares the sets of the k nearest neighbours of an item before and after; rank-biased overlap (Webber, Moffat & Zobel,
TOIS 2010) weighs agreement at depth d by p^(d−1), so that the first neighbours count most. Spearman's correlation of the cosine of
two items with the length of their shared prefix needs no decoding. All three look at seeded samples: of queries (their neighbours
are exact, among all items) and of pairs. Most pairs drawn at random share nothing, which ties them; pairs of near items are told
apart better, and `near_pairs` draws those. Not done here: what of this a recommender needs.

Shapes: N items, L levels, D dimensions, Q queries, K neighbours, P pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.quality.metrics.neighbours import ExactSearch, check_vectors, unit_rows

__all__ = [
    "Preservation",
    "jaccard",
    "near_pairs",
    "neighbourhood_preservation",
    "prefix_spearman",
    "random_pairs",
    "rank_biased_overlap",
    "shared_levels",
]

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

_CHUNK_ROWS = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Preservation:
    """How well neighbourhoods are kept: means over `num_queries` sampled items, in [0, 1].

    random_jaccard: expected of random neighbour lists, roughly: k/(2n − k) with n = N − 1 (the Jaccard of the mean overlap k²/n).
    """

    jaccard: float
    rank_biased_overlap: float
    random_jaccard: float
    k: int
    num_queries: int


def neighbourhood_preservation(
    before_ND: npt.NDArray[np.floating[Any]],
    after_NE: npt.NDArray[np.floating[Any]],
    *,
    k: int = 20,
    num_queries: int = 1000,
    persistence: float = 0.9,
    seed: int = 0,
) -> Preservation:
    """Return how well the vectors after (reconstructions, say) keep the k nearest neighbours that the vectors before have.

    Both are compared by cosine; ties after are broken by the vectors before, as items of one SID need. Deterministic for a seed;
    all items are queries where there are no more than `num_queries`. A gallery of k items or fewer lowers k to N − 1. Memory and
    time: two exact searches. Raises ValueError where the number of rows differs, or k, num_queries or persistence cannot be.
    """
    if len(before_ND) != len(after_NE) or k < 1 or num_queries < 1:
        msg = f"expected as many rows, k >= 1 and num_queries >= 1, got {len(before_ND)} and {len(after_NE)}, {k}, {num_queries}"
        raise ValueError(msg)
    num_items = len(before_ND)
    queries_Q = _sample(num_items, num_queries, seed)
    k = min(k, num_items - 1)
    before_QK = ExactSearch(before_ND).ranked(queries_Q, k)
    after_QK = ExactSearch(after_NE, before_ND).ranked(queries_Q, k)
    return Preservation(
        jaccard=float(jaccard(before_QK, after_QK).mean()),
        rank_biased_overlap=float(rank_biased_overlap(before_QK, after_QK, persistence=persistence).mean()),
        random_jaccard=k / (2 * (num_items - 1) - k),
        k=k,
        num_queries=len(queries_Q),
    )


def jaccard(one_QK: npt.NDArray[np.integer[Any]], other_QK: npt.NDArray[np.integer[Any]]) -> Float64Array:
    """Return |A ∩ B| / |A ∪ B| of each query's two lists of K different rows (Q,), in any order.

    >>> jaccard(np.array([[1, 2, 3]]), np.array([[3, 2, 9]])).tolist()
    [0.5]
    """
    _check_lists(one_QK, other_QK)
    shared_Q = np.array([len(np.intersect1d(one, other, assume_unique=True)) for one, other in zip(one_QK, other_QK, strict=True)])
    union_Q = 2 * one_QK.shape[1] - shared_Q
    result: Float64Array = shared_Q / union_Q
    return result


def rank_biased_overlap(
    one_QK: npt.NDArray[np.integer[Any]], other_QK: npt.NDArray[np.integer[Any]], *, persistence: float = 0.9
) -> Float64Array:
    """Return the extrapolated rank-biased overlap of each query's two lists (Q,), nearest first: 1 for equal lists, 0 for disjoint.

    With A_d the share of the first d of both lists that they have in common: A_K·p^K + (1 − p)/p · Σ_d A_d·p^d (Webber et al.,
    equation 30 for lists of one length). Raises ValueError unless 0 < persistence < 1.

    >>> rank_biased_overlap(np.array([[1, 2]]), np.array([[2, 1]]), persistence=0.5).tolist()
    [0.5]
    """
    _check_lists(one_QK, other_QK)
    if not 0 < persistence < 1:
        msg = f"persistence must lie in (0, 1), got {persistence}"
        raise ValueError(msg)
    num = one_QK.shape[1]
    depth_K = np.arange(1, num + 1)
    result = np.empty(len(one_QK))
    for query, (one_K, other_K) in enumerate(zip(one_QK, other_QK, strict=True)):  # 20 µs at K = 20
        met = np.argwhere(one_K[:, None] == other_K[None, :]).max(axis=1, initial=-1)  # depth at which a row is in both
        agreement_K = np.cumsum(np.bincount(met[met >= 0], minlength=num)) / depth_K
        weighted = math.fsum(agreement * persistence**depth for depth, agreement in enumerate(agreement_K.tolist(), start=1))
        result[query] = agreement_K[-1] * persistence**num + (1 - persistence) / persistence * weighted
    return result


def prefix_spearman(
    vectors_ND: npt.NDArray[np.floating[Any]],
    codes_NL: npt.NDArray[np.integer[Any]],
    pairs_P2: npt.NDArray[np.integer[Any]],
) -> float:
    """Return Spearman's correlation, over the pairs, of the cosine of two vectors with the number of first levels their SIDs share.

    NaN where all pairs share as many levels, or all cosines are equal. Memory: 8·D bytes per pair of a chunk, and 40 per pair.
    Raises ValueError where the number of rows differs or a pair is outside of them.
    """
    check_vectors(vectors_ND)
    if len(codes_NL) != len(vectors_ND) or pairs_P2.ndim != 2 or pairs_P2.shape[1] != 2 or not len(pairs_P2):
        msg = f"expected a SID per vector and pairs (P >= 1, 2), got {codes_NL.shape}, {vectors_ND.shape} and {pairs_P2.shape}"
        raise ValueError(msg)
    if pairs_P2.min() < 0 or pairs_P2.max() >= len(codes_NL):
        msg = f"pairs name rows {pairs_P2.min()} to {pairs_P2.max()}; allowed are 0 to {len(codes_NL) - 1}"
        raise ValueError(msg)
    shared_P = shared_levels(codes_NL, pairs_P2)
    cosine_P = np.empty(len(pairs_P2))
    for start in range(0, len(pairs_P2), _CHUNK_ROWS):
        one_PD, other_PD = (unit_rows(vectors_ND[pairs_P2[start : start + _CHUNK_ROWS, side]]) for side in (0, 1))
        cosine_P[start : start + _CHUNK_ROWS] = np.einsum("pd,pd->p", one_PD, other_PD, dtype=np.float64)
    if np.ptp(shared_P) == 0 or np.ptp(cosine_P) == 0:
        return float("nan")
    from scipy.stats import spearmanr  # takes a second to import

    return float(spearmanr(cosine_P, shared_P).statistic)


def shared_levels(codes_NL: npt.NDArray[np.integer[Any]], pairs_P2: npt.NDArray[np.integer[Any]]) -> Int64Array:
    """Return the length of the prefix that the two SIDs of each pair share (P,), from 0 to L.

    >>> shared_levels(np.array([[1, 2, 3], [1, 2, 4], [0, 2, 3]]), np.array([[0, 1], [0, 2], [1, 1]])).tolist()
    [2, 0, 3]
    """
    same_PL = codes_NL[pairs_P2[:, 0]] == codes_NL[pairs_P2[:, 1]]
    lengths_P: Int64Array = np.cumprod(same_PL, axis=1, dtype=np.int64).sum(axis=1)
    return lengths_P


def random_pairs(num_items: int, num_pairs: int, *, seed: int = 0) -> Int64Array:
    """Return pairs (P, 2) of different rows, each pair equally likely, drawn with replacement; deterministic."""
    if num_items < 2 or num_pairs < 1:
        msg = f"pairs need at least 2 items and 1 pair, got {num_items} and {num_pairs}"
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    first_P, step_P = rng.integers(0, num_items, num_pairs), rng.integers(1, num_items, num_pairs)
    return np.stack([first_P, (first_P + step_P) % num_items], axis=1)


def near_pairs(vectors_ND: npt.NDArray[np.floating[Any]], *, k: int = 20, num_queries: int = 1000, seed: int = 0) -> Int64Array:
    """Return pairs (P, 2): sampled rows, each with its k nearest others and with k random others, half and half; deterministic."""
    num_items = len(vectors_ND)
    queries_Q = _sample(num_items, num_queries, seed)
    k = min(k, num_items - 1)
    near_QK = ExactSearch(vectors_ND).ranked(queries_Q, k)
    far_QK = (queries_Q[:, None] + np.random.default_rng(seed + 1).integers(1, num_items, near_QK.shape)) % num_items
    others_P = np.concatenate([near_QK, far_QK], axis=1).reshape(-1)
    return np.stack([np.repeat(queries_Q, 2 * k), others_P], axis=1)


def _sample(num_items: int, num: int, seed: int) -> Int64Array:
    if num >= num_items:
        return np.arange(num_items, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(num_items, num, replace=False)).astype(np.int64)


def _check_lists(one_QK: npt.NDArray[np.integer[Any]], other_QK: npt.NDArray[np.integer[Any]]) -> None:
    if one_QK.shape != other_QK.shape or one_QK.ndim != 2 or not one_QK.size:
        msg = f"neighbours must both have shape (queries >= 1, k >= 1), got {one_QK.shape} and {other_QK.shape}"
        raise ValueError(msg)
