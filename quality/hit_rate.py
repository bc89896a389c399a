"""Embedding hit rate (EHR@K) as FORGE computes it: whether the neighbours of what a user had contain what came next.

Source: arXiv 2509.20904, section 4.2 and appendix A.6; `SID_generation/infer_SID.py` of selous123/al_sid before commit 23ee192.
For a session s with items i and target t, over a gallery of n vectors compared by cosine (inner product of unit vectors):

    EHR@K = mean over sessions of 1[t is in the union over i of TopK(v_i) without i],   K = 30.

FORGE prints it times 100; here it lies in [0, 1]. FORGE's approximate search (hnswlib, mean of three builds) is replaced by an
exact one. Of its two denominators we take that of its hnsw script: sessions with an item in the gallery and their target in it.
Long sessions have more chances, so values compare only between vectors scored on the same sessions: callers bound the history.

Three vectors per item are worth scoring, and FORGE's paper and code differ on which: `ehr_raw` (the embedding itself: the ceiling),
`ehr_quantized` (sum of the codebook vectors, in the space that was quantised) and `ehr_reconstructed` (that sum mapped back to the
input space). For residual k-means, which has no encoder, the last two differ only by the inverse of the fusion.

Rules: an item is never its own neighbour; a zero vector has similarity 0 to all; ties at the K-th place are broken by the cosine of
`tie_break_ND` (the raw vectors: items that share a SID share a reconstruction), then by row number. Rows with equal vectors get
equal scores bit for bit; *different* vectors whose cosines agree to float32 rounding are ordered by that rounding.
Not done here: popularity correction, ranking within the candidates, approximate search.

Shapes: N gallery items, U different vectors, D dimensions, B queries of a block, K neighbours, P (session, item) pairs, T ties.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.quality.sessions import Sessions

__all__ = ["EmbeddingHitRate", "embedding_hit_rate", "nearest_neighbours"]

_BLOCK_BYTES = 256 * 2**20  # scores (4 B), their expansion (4 B) and argpartition's order (8 B) per query and gallery item


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingHitRate:
    """The share of scorable sessions that hit, and what it is worth.

    value: EHR@k in [0, 1]. num_sessions: the denominator; num_left_out: sessions without an item, or without their target, in the
    gallery. random_floor: expected value for random neighbour lists, mean over sessions of 1 − (1 − k/(n−1))^m, m being the
    session's different items other than the target (an item never finds itself). standard_error: √(value·(1−value)/num_sessions).
    ci_low, ci_high: 95 % Wilson interval, which unlike a bootstrap stays honest at 0 and 1; sessions count as independent.
    tie_rate: share of query items whose k-th and (k+1)-th scores are equal, before ties are broken.
    """

    value: float
    num_sessions: int
    num_left_out: int
    k: int
    random_floor: float
    standard_error: float
    ci_low: float
    ci_high: float
    tie_rate: float


def embedding_hit_rate(
    vectors_ND: npt.NDArray[np.floating[Any]],
    sessions: Sessions,
    *,
    k: int = 30,
    tie_break_ND: npt.NDArray[np.floating[Any]] | None = None,
    block_bytes: int = _BLOCK_BYTES,
) -> EmbeddingHitRate:
    """Return EHR@k of the vectors on the sessions; exact and deterministic for the same inputs.

    A gallery of k + 1 items or fewer makes every other item a neighbour. Memory: 4·D + 40 bytes per item beside the inputs, about
    40 bytes per entry of `items_flat`, and `block_bytes` (or one query's 16·N bytes, if more) for the similarity block. Each
    different query item is looked up once: 2·D·N floating-point operations.
    Raises ValueError on vectors that are not finite, rows outside the gallery, k < 1, or no scorable session.
    """
    num_items = len(vectors_ND)
    _check(vectors_ND, sessions, k, tie_break_ND)
    k = min(k, num_items - 1)
    query_P, session_P = _pairs(sessions)
    target_P = sessions.targets[session_P]
    block = max(1, block_bytes // (16 * num_items))
    hit_P, tie_rate = _hits(_Gallery(vectors_ND, tie_break_ND), query_P, target_P, k=k, block=block)
    scored, of_P = np.unique(session_P, return_inverse=True)
    num_sessions = len(scored)
    num_hits = int(np.count_nonzero(np.bincount(of_P, weights=hit_P)))
    num_chances = np.bincount(of_P, weights=query_P != target_P)
    value = num_hits / num_sessions
    low, high = _wilson(num_hits, num_sessions)
    return EmbeddingHitRate(
        value=value,
        num_sessions=num_sessions,
        num_left_out=sessions.num_sessions - num_sessions,
        k=k,
        random_floor=float(np.mean(1.0 - (1.0 - k / (num_items - 1)) ** num_chances)),
        standard_error=math.sqrt(value * (1.0 - value) / num_sessions),
        ci_low=low,
        ci_high=high,
        tie_rate=tie_rate,
    )


def nearest_neighbours(
    vectors_ND: npt.NDArray[np.floating[Any]],
    queries_B: npt.NDArray[np.int64],
    k: int,
    *,
    tie_break_ND: npt.NDArray[np.floating[Any]] | None = None,
) -> npt.NDArray[np.int64]:
    """Return each query row's k nearest other rows by cosine, (B, k), ascending by row number; ties are broken as for the EHR.

    Memory: 16·B·N bytes. Raises ValueError unless 1 <= k <= N − 1.

    >>> nearest_neighbours(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], dtype=np.float32), np.array([0]), 1)
    array([[1]])
    """
    _check_vectors(vectors_ND, tie_break_ND)
    if not 1 <= k <= len(vectors_ND) - 1:
        msg = f"k must lie in [1, {len(vectors_ND) - 1}] for {len(vectors_ND)} items, got {k}"
        raise ValueError(msg)
    return np.sort(_Gallery(vectors_ND, tie_break_ND).nearest(queries_B, k)[0], axis=1)


class _Gallery:
    """Unit vectors of the different rows: a matrix product may round equal rows differently, so each is multiplied once."""

    def __init__(self, vectors_ND: npt.NDArray[np.floating[Any]], tie_break_ND: npt.NDArray[np.floating[Any]] | None) -> None:
        first_U, self._group_N = _distinct_rows(vectors_ND)
        self._unit_UD = _unit(vectors_ND[first_U].astype(np.float32, copy=False))  # indexing has copied already
        self._all_distinct = len(first_U) == len(vectors_ND)
        self._tie_break_ND = tie_break_ND

    def nearest(self, queries_B: npt.NDArray[np.int64], k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return the k nearest other rows (B, k) in no order, and whether places k and k + 1 tie (B,)."""
        scores_BN = self._unit_UD[self._group_N[queries_B]] @ self._unit_UD.T
        if not self._all_distinct:
            scores_BN = np.take(scores_BN, self._group_N, axis=1)
        rows_B = np.arange(len(queries_B))
        scores_BN[rows_B, queries_B] = -np.inf
        after = scores_BN.shape[1] - k - 1  # place k + 1; the query itself, when k is all others
        order_BN = np.argpartition(scores_BN, after, axis=1)
        neighbours_BK = order_BN[:, after + 1 :].astype(np.int64)
        kth_B = np.take_along_axis(scores_BN, neighbours_BK, axis=1).min(axis=1)
        tied_B = kth_B == scores_BN[rows_B, order_BN[:, after]]
        for row in np.flatnonzero(tied_B):  # 85 µs per tied row of 12,101 × 384; other rows cost nothing
            neighbours_BK[row] = self._break_ties(scores_BN[row], int(queries_B[row]), float(kth_B[row]), k)
        return neighbours_BK, tied_B

    def _break_ties(self, scores_N: npt.NDArray[np.float32], query: int, kth: float, k: int) -> npt.NDArray[np.int64]:
        above = np.flatnonzero(scores_N > kth)
        level = np.flatnonzero(scores_N == kth)
        if self._tie_break_ND is not None:
            level = level[np.lexsort((level, -self._raw_similarity(level, query)))]
        return np.concatenate([above, level[: k - len(above)]])

    def _raw_similarity(self, rows: npt.NDArray[np.int64], query: int) -> npt.NDArray[np.float64]:
        """Return cosines up to the query's norm, which does not change their order; row by row, so equal rows get equal values."""
        assert self._tie_break_ND is not None
        query_D = self._tie_break_ND[query].astype(np.float64)
        result = np.empty(len(rows), dtype=np.float64)
        for start in range(0, len(rows), 8192):  # a zero vector ties with the whole gallery: bound the copy
            raw_TD = self._tie_break_ND[rows[start : start + 8192]].astype(np.float64)
            norm_T = np.sqrt(np.einsum("td,td->t", raw_TD, raw_TD))
            norm_T[norm_T == 0] = 1.0
            result[start : start + 8192] = np.einsum("td,d->t", raw_TD, query_D) / norm_T
        return result


def _hits(
    gallery: _Gallery, query_P: npt.NDArray[np.int64], target_P: npt.NDArray[np.int64], *, k: int, block: int
) -> tuple[npt.NDArray[np.bool_], float]:
    """Return whether each pair's target is near its query, and the share of queries that tie; pairs come sorted by query."""
    queries, starts = np.unique(query_P, return_index=True)
    bounds = np.append(starts, len(query_P))
    hit_P = np.zeros(len(query_P), dtype=np.bool_)
    num_tied = 0
    for first in range(0, len(queries), block):
        queries_B = queries[first : first + block]
        neighbours_BK, tied_B = gallery.nearest(queries_B, k)
        pairs = slice(bounds[first], bounds[first + len(queries_B)])
        rows = np.searchsorted(queries_B, query_P[pairs])
        hit_P[pairs] = np.any(neighbours_BK[rows] == target_P[pairs, None], axis=1)
        num_tied += int(np.count_nonzero(tied_B))
    return hit_P, num_tied / len(queries)


def _pairs(sessions: Sessions) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the different (item, session) pairs of scorable sessions, sorted by item."""
    session = sessions.session_of_item
    usable = (sessions.items_flat >= 0) & (sessions.targets[session] >= 0)
    key = np.unique(sessions.items_flat[usable] * sessions.num_sessions + session[usable])
    return key // sessions.num_sessions, key % sessions.num_sessions


def _distinct_rows(vectors_ND: npt.NDArray[np.floating[Any]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first row of each different vector (U,) and each row's vector number (N,), by a 128-bit hash of its bytes.

    The loop takes 7 µs per item at D = 384; sorting the rows themselves would copy the gallery twice.
    """
    digests = bytearray()
    for start in range(0, len(vectors_ND), 8192):
        chunk = np.ascontiguousarray(vectors_ND[start : start + 8192], dtype=np.float32) + np.float32(0)  # −0 becomes 0
        for row in chunk:
            digests += hashlib.blake2b(row.data, digest_size=16).digest()
    _, first, group = np.unique(np.frombuffer(bytes(digests), dtype="V16"), return_index=True, return_inverse=True)
    if len(first) == len(vectors_ND):
        identity = np.arange(len(vectors_ND), dtype=np.int64)
        return identity, identity
    return first.astype(np.int64), group.astype(np.int64)


def _unit(unit_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the rows divided, in place, by their norm; zero rows stay. Dividing by the largest entry first avoids overflow."""
    scale_N = np.maximum(unit_ND.max(axis=1), -unit_ND.min(axis=1))
    unit_ND /= np.where(scale_N > 0, scale_N, np.float32(1))[:, None]
    norm_N = np.sqrt(np.einsum("nd,nd->n", unit_ND, unit_ND))
    unit_ND /= np.where(norm_N > 0, norm_N, np.float32(1))[:, None]
    return unit_ND


def _wilson(num_hits: int, num: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (Wilson 1927)."""
    z = NormalDist().inv_cdf(0.975)
    share = num_hits / num
    centre = share + z * z / (2 * num)
    half = z * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num))
    scale = 1 + z * z / num
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _check(
    vectors_ND: npt.NDArray[np.floating[Any]], sessions: Sessions, k: int, tie_break_ND: npt.NDArray[np.floating[Any]] | None
) -> None:
    _check_vectors(vectors_ND, tie_break_ND)
    if k < 1:
        msg = f"k must be >= 1, got {k}"
        raise ValueError(msg)
    highest = max(sessions.items_flat.max(initial=-1), sessions.targets.max(initial=-1))
    if highest >= len(vectors_ND):
        msg = f"sessions name gallery row {highest}, but the gallery has rows 0 to {len(vectors_ND) - 1}"
        raise ValueError(msg)
    if sessions.num_scorable == 0:
        msg = f"none of {sessions.num_sessions} sessions has both an item and its target in the gallery; the hit rate is undefined"
        raise ValueError(msg)


def _check_vectors(vectors_ND: npt.NDArray[np.floating[Any]], tie_break_ND: npt.NDArray[np.floating[Any]] | None) -> None:
    for name, array in (("vectors", vectors_ND), ("tie_break", tie_break_ND)):
        if array is None:
            continue
        if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 1 or len(array) != len(vectors_ND):
            msg = f"{name} must have shape ({len(vectors_ND)} items >= 2, dimensions >= 1), got {array.shape}"
            raise ValueError(msg)
        bad = sum(np.count_nonzero(~np.isfinite(array[start : start + 8192])) for start in range(0, len(array), 8192))
        if bad:
            msg = f"{name} must be finite, got {bad} values that are NaN or infinite; reject those items first"
            raise ValueError(msg)
