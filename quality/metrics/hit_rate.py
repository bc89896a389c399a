"""Embedding hit rate (EHR@K) as FORGE computes it: whether the neighbours of what a user had contain what came next.

Source: arXiv 2509.20904, section 4.2 and appendix A.6; `SID_generation/infer_SID.py` of selous123/al_sid before commit 23ee192.
For a session s with items i and target t, over a gallery of n vectors compared by cosine (inner product of unit vectors):

    EHR@K = mean over sessions of 1[t is in the union over i of TopK(v_i) without i],   K = 30.

FORGE prints it times 100; here it lies in [0, 1]. Its two scripts differ in the denominator, and so does the search: the hnsw one
counts sessions with an item in the gallery *and* their target in it, our rule for exact and approximate search alike; the exact one
counts a target outside the gallery as a miss (`count_missing_targets`). Long sessions have more chances, so values compare only
between vectors scored on the same sessions; `max_items` bounds the candidate sets to max_items · K.

Three vectors per item are worth scoring, and FORGE's paper and code differ on which: `ehr_raw` (the embedding itself: the ceiling),
`ehr_quantized` (sum of the codebook vectors, in the space that was quantised) and `ehr_reconstructed` (that sum mapped back to the
input space). For residual k-means, which has no encoder, the last two differ only by the inverse of the fusion.

Neighbours and ties are those of `neighbours`; items that share a SID share a reconstruction, so pass the raw vectors to break ties.
Not done here: popularity and cold items (see `hit_rate_detail`), ranking within the candidates.

Shapes: N gallery items, D dimensions, B queries, K neighbours, P (session, item) pairs, S sessions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.quality.metrics.exact_sums import mean_chance
from sidlake.quality.metrics.neighbours import BLOCK_BYTES, ExactSearch, NeighbourSearch
from sidlake.quality.metrics.sessions import Sessions

__all__ = [
    "EmbeddingHitRate",
    "SessionHits",
    "embedding_hit_rate",
    "hit_rate_of",
    "nearest_neighbours",
    "session_hits",
    "wilson_interval",
]

_QUERIES = 16_384  # whose unit vectors and neighbours are in memory at once


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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SessionHits:
    """What became of each scorable session: the numbers behind a hit rate.

    Attributes:
        sessions_S: Numbers of the scorable sessions, ascending, int64.
        hits_S: Whether each hit.
        chances_S: Different items of each other than its target; 0 where the target is outside the gallery.
        num_left_out: Sessions that are not scorable.
        num_items: Items of the gallery.
        k: Neighbours per item.
        tie_rate: Share of query items whose k-th and (k+1)-th scores are equal.
    """

    sessions_S: npt.NDArray[np.int64]
    hits_S: npt.NDArray[np.bool_]
    chances_S: npt.NDArray[np.int64]
    num_left_out: int
    num_items: int
    k: int
    tie_rate: float


def embedding_hit_rate(
    vectors_ND: npt.NDArray[np.floating[Any]],
    sessions: Sessions,
    *,
    k: int = 30,
    tie_break_ND: npt.NDArray[np.floating[Any]] | None = None,
    block_bytes: int = BLOCK_BYTES,
    count_missing_targets: bool = False,
    max_items: int | None = None,
) -> EmbeddingHitRate:
    """Return EHR@k of the vectors on the sessions; exact and deterministic for the same inputs.

    The vectors may be a memory-mapped file: they are read block by block. A gallery of k + 1 items or fewer makes every other item
    a neighbour. Memory: 40 bytes per item beside the inputs, about 40 bytes per entry of `items_flat`, and `block_bytes`. Each
    different query item is looked up once: 2·D·N floating-point operations. `count_missing_targets` counts targets outside the
    gallery as misses, as FORGE's exact script does; `max_items` scores the last so many entries of each session.
    Raises ValueError on vectors that are not finite, rows outside the gallery, k < 1, or no scorable session.
    """
    search = ExactSearch(vectors_ND, tie_break_ND, block_bytes=block_bytes)
    sessions = sessions if max_items is None else sessions.last_items(max_items)
    return hit_rate_of(session_hits(search, sessions, num_items=len(vectors_ND), k=k, count_missing_targets=count_missing_targets))


def session_hits(
    search: NeighbourSearch, sessions: Sessions, *, num_items: int, k: int = 30, count_missing_targets: bool = False
) -> SessionHits:
    """Return what became of each session under any search, with one rule for what is scored; see `embedding_hit_rate`."""
    _check(sessions, num_items, k, count_missing_targets)
    k = min(k, num_items - 1)
    query_P, session_P = _pairs(sessions, count_missing_targets)
    target_P = sessions.targets[session_P]
    hit_P, tie_rate = _hits(search, query_P, target_P, k)
    scored, of_P = np.unique(session_P, return_inverse=True)
    return SessionHits(
        sessions_S=scored,
        hits_S=np.bincount(of_P, weights=hit_P) > 0,
        chances_S=np.bincount(of_P, weights=(query_P != target_P) & (target_P >= 0)).astype(np.int64),
        num_left_out=sessions.num_sessions - len(scored),
        num_items=num_items,
        k=k,
        tie_rate=tie_rate,
    )


def hit_rate_of(hits: SessionHits) -> EmbeddingHitRate:
    """Return the hit rate of scored sessions."""
    num_sessions, num_hits = len(hits.hits_S), int(np.count_nonzero(hits.hits_S))
    value = num_hits / num_sessions
    low, high = wilson_interval(num_hits, num_sessions)
    return EmbeddingHitRate(
        value=value,
        num_sessions=num_sessions,
        num_left_out=hits.num_left_out,
        k=hits.k,
        random_floor=mean_chance(hits.k / (hits.num_items - 1), hits.chances_S),
        standard_error=math.sqrt(value * (1.0 - value) / num_sessions),
        ci_low=low,
        ci_high=high,
        tie_rate=hits.tie_rate,
    )


def nearest_neighbours(
    vectors_ND: npt.NDArray[np.floating[Any]],
    queries_B: npt.NDArray[np.int64],
    k: int,
    *,
    tie_break_ND: npt.NDArray[np.floating[Any]] | None = None,
) -> npt.NDArray[np.int64]:
    """Return each query row's k nearest other rows by cosine, (B, k), ascending by row number; ties are broken as for the EHR.

    Memory: as `embedding_hit_rate`. Raises ValueError unless 1 <= k <= N − 1.

    >>> nearest_neighbours(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], dtype=np.float32), np.array([0]), 1)
    array([[1]])
    """
    return np.sort(ExactSearch(vectors_ND, tie_break_ND).nearest(queries_B, k)[0], axis=1)


def wilson_interval(num_hits: int, num: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (Wilson 1927)."""
    z = NormalDist().inv_cdf(0.975)
    share = num_hits / num
    centre = share + z * z / (2 * num)
    half = z * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num))
    scale = 1 + z * z / num
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _hits(
    search: NeighbourSearch, query_P: npt.NDArray[np.int64], target_P: npt.NDArray[np.int64], k: int
) -> tuple[npt.NDArray[np.bool_], float]:
    """Return whether each pair's target is near its query, and the share of queries that tie; pairs come sorted by query."""
    queries, starts = np.unique(query_P, return_index=True)
    bounds = np.append(starts, len(query_P))
    hit_P = np.zeros(len(query_P), dtype=np.bool_)
    num_tied = 0
    for first in range(0, len(queries), _QUERIES):
        queries_B = queries[first : first + _QUERIES]
        neighbours_BK, tied_B = search.nearest(queries_B, k)
        pairs = slice(bounds[first], bounds[first + len(queries_B)])
        rows = np.searchsorted(queries_B, query_P[pairs])
        hit_P[pairs] = np.any(neighbours_BK[rows] == target_P[pairs, None], axis=1) & (target_P[pairs] >= 0)
        num_tied += int(np.count_nonzero(tied_B))
    return hit_P, num_tied / len(queries)


def _pairs(sessions: Sessions, count_missing_targets: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the different (item, session) pairs of scorable sessions, sorted by item."""
    session = sessions.session_of_item
    usable = sessions.items_flat >= 0
    if not count_missing_targets:
        usable &= sessions.targets[session] >= 0
    key = np.unique(sessions.items_flat[usable] * sessions.num_sessions + session[usable])
    return key // sessions.num_sessions, key % sessions.num_sessions


def _check(sessions: Sessions, num_items: int, k: int, count_missing_targets: bool) -> None:
    if k < 1:
        msg = f"k must be >= 1, got {k}"
        raise ValueError(msg)
    highest = max(sessions.items_flat.max(initial=-1), sessions.targets.max(initial=-1))
    if highest >= num_items:
        msg = f"sessions name gallery row {highest}, but the gallery has rows 0 to {num_items - 1}"
        raise ValueError(msg)
    if not (sessions.items_flat >= 0).any() if count_missing_targets else sessions.num_scorable == 0:
        what = "an item" if count_missing_targets else "both an item and its target"
        msg = f"none of {sessions.num_sessions} sessions has {what} in the gallery; the hit rate is undefined"
        raise ValueError(msg)
