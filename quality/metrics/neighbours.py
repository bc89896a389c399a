"""Exact nearest neighbours by cosine, block after block of a gallery that may be larger than memory.

The gallery is any array of rows, a memory-mapped one too: a block is read, brought to unit length, multiplied, and forgotten; each
query keeps its best k + 1 rows. Memory does not grow with the gallery, but for about 40 bytes per row that tell equal rows apart.

Rules: an item is never its own neighbour; a zero vector has similarity 0 to all; ties at the k-th place are broken by the cosine of
`tie_break_ND`, then by row number. Rows with equal vectors get equal scores bit for bit (a matrix product may round equal rows
differently, so each different vector is multiplied once); *different* vectors whose cosines agree to float32 rounding are ordered
by that rounding, which is the same on any number of threads. Not done here: approximate search (see `approximate`).

Shapes: N gallery rows, U different vectors, D dimensions, Q queries, B queries or M vectors of a block, K neighbours, C candidates,
T rows that tie.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.numeric.threads import product_in_blocks

__all__ = ["BLOCK_BYTES", "ExactSearch", "NeighbourSearch", "check_vectors", "unit_rows"]

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

BLOCK_BYTES = 256 * 2**20  # scores (4 B), their order (8 B), a mask and slack, per query and vector of a block
_BLOCK_ROWS = 16_384
_CHUNK_ROWS = 8192
_CANDIDATES = 2_000_000  # about 100 bytes each while they are sorted


class NeighbourSearch(Protocol):
    """Finds nearest rows, exactly or nearly."""

    def nearest(self, queries_Q: Int64Array, k: int) -> tuple[Int64Array, npt.NDArray[np.bool_]]:
        """Return each query row's k nearest other rows (Q, K), and whether places k and k + 1 score alike (Q,)."""
        ...


class ExactSearch:
    """Searches all rows; deterministic for the same inputs.

    Raises ValueError on vectors that are not finite, or where `tie_break_ND` has other rows. Takes 7 µs per row at D = 384 to find
    the different ones, then 2·D·U floating-point operations per query. Memory: 40 bytes per row, `block_bytes`, the
    vectors of a block, and 4·D + 24·k bytes per query.
    """

    def __init__(
        self,
        vectors_ND: npt.NDArray[np.floating[Any]],
        tie_break_ND: npt.NDArray[np.floating[Any]] | None = None,
        *,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        check_vectors(vectors_ND, tie_break_ND)
        self._vectors_ND, self._tie_break_ND = vectors_ND, tie_break_ND
        self._first_U, self._group_N = _distinct_rows(vectors_ND)
        self._num_rows_U = np.bincount(self._group_N)
        self._starts_U = np.cumsum(self._num_rows_U) - self._num_rows_U
        self._all_distinct = len(self._first_U) == len(vectors_ND)
        self._rows_N = self._group_N if self._all_distinct else np.argsort(self._group_N, kind="stable")
        self._block_rows = max(1, min(_BLOCK_ROWS, len(self._first_U), block_bytes // 16))
        self._block_queries = max(1, block_bytes // (16 * self._block_rows))

    def nearest(self, queries_Q: Int64Array, k: int) -> tuple[Int64Array, npt.NDArray[np.bool_]]:
        """Return each query row's k nearest other rows (Q, K), and whether places k and k + 1 tie (Q,).

        The k rows are those of the tie rule; among themselves, equal scores stand by row number (see `ranked`). Raises ValueError
        unless 1 <= k <= N − 1.
        """
        best = self._search(queries_Q, k)
        return best.rows_QK[:, :k], best.scores_QK[:, k - 1] == best.scores_QK[:, k]

    def ranked(self, queries_Q: Int64Array, k: int) -> Int64Array:
        """Return each query row's k nearest other rows (Q, K), nearest first, equal scores by the tie rule throughout."""
        best = self._search(queries_Q, k)
        rows_QK, scores_QK = best.rows_QK[:, :k].copy(), best.scores_QK[:, :k]
        if self._tie_break_ND is None:
            return rows_QK
        for query in np.flatnonzero((scores_QK[:, 1:] == scores_QK[:, :-1]).any(axis=1)):
            raw_K = self._raw_similarity(rows_QK[query], int(queries_Q[query]))
            rows_QK[query] = rows_QK[query][np.lexsort((rows_QK[query], -raw_K, -scores_QK[query]))]
        return rows_QK

    def _search(self, queries_Q: Int64Array, k: int) -> _Best:
        num_rows = len(self._vectors_ND)
        if not 1 <= k <= num_rows - 1:
            msg = f"k must lie in [1, {num_rows - 1}] for {num_rows} items, got {k}"
            raise ValueError(msg)
        best = _Best(queries_Q, k)
        query_QD = unit_rows(self._vectors_ND[queries_Q])
        for first in range(0, len(self._first_U), self._block_rows):
            end = min(first + self._block_rows, len(self._first_U))
            block_MD = unit_rows(self._vectors_ND[first:end] if self._all_distinct else self._vectors_ND[self._first_U[first:end]])
            for start in range(0, len(queries_Q), self._block_queries):
                scores_BM = product_in_blocks(query_QD[start : start + self._block_queries], block_MD.T)
                self._contend(best, scores_BM, start=start, first=first)
        return best

    def _contend(self, best: _Best, scores_BM: Float32Array, *, start: int, first: int) -> None:
        """Let the vectors numbered from `first` contend for the places of the queries from `start` on."""
        least_B = best.scores_QK[start : start + len(scores_BM), -1]
        if np.isneginf(least_B).any():
            least_B = np.maximum(least_B, self._least_worth_a_place(scores_BM, best.k, first))
        # np.nonzero of a matrix takes forty times as long (NumPy 2.4)
        query_C, vector_C = np.divmod(np.flatnonzero(scores_BM >= least_B[:, None]), scores_BM.shape[1])
        if len(scores_BM) > 1 and int(self._num_rows_U[vector_C + first].sum()) > _CANDIDATES:
            half = len(scores_BM) // 2
            self._contend(best, scores_BM[:half], start=start, first=first)
            self._contend(best, scores_BM[half:], start=start + half, first=first)
            return
        score_C = scores_BM[query_C, vector_C]
        if self._all_distinct:
            rows_C = vector_C + first
        else:
            times_C = self._num_rows_U[vector_C + first]
            within_C = np.arange(int(times_C.sum())) - np.repeat(np.cumsum(times_C) - times_C, times_C)
            rows_C = self._rows_N[np.repeat(self._starts_U[vector_C + first], times_C) + within_C]
            query_C, score_C = np.repeat(query_C, times_C), np.repeat(score_C, times_C)
        self._add(best, query_C + start, rows_C, score_C)

    def _least_worth_a_place(self, scores_BM: Float32Array, k: int, first: int) -> Float32Array:
        """Return a score per query that k + 1 other rows of this block reach, −∞ where it has fewer rows."""
        num = min(k + 2, scores_BM.shape[1])  # the query itself is one of k + 2
        top_BT = np.argpartition(scores_BM, -num, axis=1)[:, -num:]
        found_BT = np.take_along_axis(scores_BM, top_BT, axis=1)
        order_BT = np.argsort(-found_BT, axis=1)
        rows_BT = np.cumsum(np.take_along_axis(self._num_rows_U[top_BT + first], order_BT, axis=1), axis=1)
        enough_BT = rows_BT >= k + 2
        at_B = np.take_along_axis(order_BT, enough_BT.argmax(axis=1)[:, None], axis=1)
        least_B: Float32Array = np.where(enough_BT[:, -1], np.take_along_axis(found_BT, at_B, axis=1)[:, 0], np.float32(-np.inf))
        return least_B

    def _add(self, best: _Best, query_C: Int64Array, rows_C: Int64Array, score_C: Float32Array) -> None:
        """Keep the best k + 1 of what each query had and of these rows, in the order of score and row; settle ties at place k."""
        others_C = rows_C != best.queries_Q[query_C]
        query_C, rows_C, score_C = best.with_held(query_C[others_C], rows_C[others_C], score_C[others_C])
        order_C = np.lexsort((rows_C, -score_C, query_C))
        query_C, rows_C, score_C = query_C[order_C], rows_C[order_C], score_C[order_C]
        starts = np.flatnonzero(np.diff(query_C, prepend=-1))
        ends = np.append(starts[1:], len(query_C))
        rank_C = np.arange(len(query_C)) - np.repeat(starts, ends - starts)
        kept_C = rank_C <= best.k
        best.rows_QK[query_C[kept_C], rank_C[kept_C]] = rows_C[kept_C]
        best.scores_QK[query_C[kept_C], rank_C[kept_C]] = score_C[kept_C]
        if self._tie_break_ND is None:
            return
        tied = (score_C[starts + best.k - 1] == score_C[starts + best.k]) & (rows_C[starts + best.k] >= 0)
        for start, end in zip(starts[tied].tolist(), ends[tied].tolist(), strict=True):  # 85 µs per tied row of 12,101 × 384
            some = slice(start, end)
            query = int(query_C[start])
            best.rows_QK[query, : best.k] = self._winners(rows_C[some], score_C[some], int(best.queries_Q[query]), best.k)
            level = rows_C[some][score_C[some] == score_C[start + best.k]]
            best.rows_QK[query, best.k] = level[~np.isin(level, best.rows_QK[query, : best.k])][0]

    def _winners(self, rows_T: Int64Array, score_T: Float32Array, query: int, k: int) -> Int64Array:
        """Return k of the rows, which come in the order of their scores: all above the k-th score, then the nearest at it."""
        above = rows_T[score_T > score_T[k - 1]]
        level = rows_T[score_T == score_T[k - 1]]
        level = level[np.lexsort((level, -self._raw_similarity(level, query)))]
        return np.concatenate([above, np.sort(level[: k - len(above)])])

    def _raw_similarity(self, rows_T: Int64Array, query: int) -> npt.NDArray[np.float64]:
        """Return cosines up to the query's norm, which does not change their order; row by row, so equal rows get equal values."""
        assert self._tie_break_ND is not None
        query_D = self._tie_break_ND[query].astype(np.float64)
        result = np.empty(len(rows_T), dtype=np.float64)
        for start in range(0, len(rows_T), _CHUNK_ROWS):  # a zero vector ties with the whole gallery: bound the copy
            raw_TD = self._tie_break_ND[rows_T[start : start + _CHUNK_ROWS]].astype(np.float64)
            norm_T = np.sqrt(np.einsum("td,td->t", raw_TD, raw_TD))
            norm_T[norm_T == 0] = 1.0
            result[start : start + _CHUNK_ROWS] = np.einsum("td,d->t", raw_TD, query_D) / norm_T
        return result


class _Best:
    """The best k + 1 rows of each query so far, best first; row −1 and score −∞ where there are fewer."""

    def __init__(self, queries_Q: Int64Array, k: int) -> None:
        self.queries_Q, self.k = queries_Q, k
        self.rows_QK = np.full((len(queries_Q), k + 1), -1, dtype=np.int64)
        self.scores_QK = np.full((len(queries_Q), k + 1), -np.inf, dtype=np.float32)

    def with_held(
        self, query_C: Int64Array, rows_C: Int64Array, score_C: Float32Array
    ) -> tuple[Int64Array, Int64Array, Float32Array]:
        """Return the candidates and what their queries hold already."""
        held = np.unique(query_C)
        return (
            np.concatenate([query_C, np.repeat(held, self.k + 1)]),
            np.concatenate([rows_C, self.rows_QK[held].reshape(-1)]),
            np.concatenate([score_C, self.scores_QK[held].reshape(-1)]),
        )


def unit_rows(x_ND: npt.NDArray[np.floating[Any]]) -> Float32Array:
    """Return the rows divided by their norm, float32 and new; zero rows stay."""
    unit_ND = np.array(x_ND, dtype=np.float32)
    # Dividing by the largest entry first keeps the squares from overflowing.
    scale_N = np.maximum(unit_ND.max(axis=1), -unit_ND.min(axis=1))
    unit_ND /= np.where(scale_N > 0, scale_N, np.float32(1))[:, None]
    norm_N = np.sqrt(np.einsum("nd,nd->n", unit_ND, unit_ND))
    unit_ND /= np.where(norm_N > 0, norm_N, np.float32(1))[:, None]
    return unit_ND


def check_vectors(vectors_ND: npt.NDArray[np.floating[Any]], tie_break_ND: npt.NDArray[np.floating[Any]] | None = None) -> None:
    """Raise ValueError unless both are finite and of shape (N >= 2, D >= 1), with the same N."""
    for name, array in (("vectors", vectors_ND), ("tie_break", tie_break_ND)):
        if array is None:
            continue
        if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 1 or len(array) != len(vectors_ND):
            msg = f"{name} must have shape ({len(vectors_ND)} items >= 2, dimensions >= 1), got {array.shape}"
            raise ValueError(msg)
        chunks = range(0, len(array), _CHUNK_ROWS)
        bad = sum(np.count_nonzero(~np.isfinite(array[start : start + _CHUNK_ROWS])) for start in chunks)
        if bad:
            msg = f"{name} must be finite, got {bad} values that are NaN or infinite; reject those items first"
            raise ValueError(msg)


def _distinct_rows(vectors_ND: npt.NDArray[np.floating[Any]]) -> tuple[Int64Array, Int64Array]:
    """Return the first row of each different vector (U,) and each row's vector number (N,), by a 128-bit hash of its bytes.

    The loop takes 7 µs per item at D = 384; sorting the rows themselves would copy the gallery twice.
    """
    digests = bytearray()
    for start in range(0, len(vectors_ND), _CHUNK_ROWS):
        chunk = np.ascontiguousarray(vectors_ND[start : start + _CHUNK_ROWS], dtype=np.float32) + np.float32(0)  # −0 becomes 0
        for row in chunk:
            digests += hashlib.blake2b(row.data, digest_size=16).digest()
    _, first, group = np.unique(np.frombuffer(bytes(digests), dtype="V16"), return_index=True, return_inverse=True)
    if len(first) == len(vectors_ND):
        identity = np.arange(len(vectors_ND), dtype=np.int64)
        return identity, identity
    return first.astype(np.int64), group.astype(np.int64)
