"""Nearest neighbours found nearly, by faiss, for galleries where searching all rows takes too long.

`session_hits` takes these as it takes the exact search, so the denominator is one and the same. HNSW with FORGE's settings (16
links, 256 candidates while building, 50 while searching) is the default; IVF looks at the nearest lists only. Both compare unit
vectors by inner product. Ties are faiss's own and not broken by the raw vectors: items of one SID come in any order, so read the
tie rate, and give the exact value where it can be had. HNSW is built by one thread, for only then are its links the same each time.

faiss is optional (`pip install faiss-cpu`). Not done here: compressed indexes, and searching on a GPU.

Shapes: N gallery rows, D dimensions, Q queries, K neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.errors import SidlakeError
from sidlake.quality.metrics.neighbours import check_vectors, unit_rows

__all__ = ["HNSW", "IVF", "ApproximateSearch", "FaissMissing", "recall"]

Int64Array = npt.NDArray[np.int64]

_CHUNK_ROWS = 16_384
_TRAINING_ROWS_PER_LIST = 64


class FaissMissing(SidlakeError):
    """faiss is not installed, and approximate search was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HNSW:
    """A graph of near neighbours: `links` per row, `build_width` and `search_width` candidates kept."""

    links: int = 16
    build_width: int = 256
    search_width: int = 50

    def __post_init__(self) -> None:
        if self.links < 2 or self.build_width < 1 or self.search_width < 1:
            msg = f"HNSW needs links >= 2 and widths >= 1, got {self.links}, {self.build_width} and {self.search_width}"
            raise ValueError(msg)


@dataclass(frozen=True, kw_only=True, slots=True)
class IVF:
    """Lists of rows by their nearest centroid: `num_lists` of them (0: the root of N), of which `num_probes` are searched."""

    num_lists: int = 0
    num_probes: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_lists < 0 or self.num_probes < 1:
            msg = f"IVF needs num_lists >= 0 and num_probes >= 1, got {self.num_lists} and {self.num_probes}"
            raise ValueError(msg)


class ApproximateSearch:
    """Searches an index of the rows, built once.

    Memory: 4·D bytes per row in the index, and 8·links more with HNSW. Raises `FaissMissing` where faiss is not installed, and
    ValueError on vectors that are not finite.
    """

    def __init__(self, vectors_ND: npt.NDArray[np.floating[Any]], index: HNSW | IVF | None = None) -> None:
        check_vectors(vectors_ND)
        self._vectors_ND = vectors_ND
        faiss = _faiss()
        index = index or HNSW()
        self._index = _hnsw(faiss, vectors_ND, index) if isinstance(index, HNSW) else _ivf(faiss, vectors_ND, index)

    def nearest(self, queries_Q: Int64Array, k: int) -> tuple[Int64Array, npt.NDArray[np.bool_]]:
        """Return each query row's k nearest other rows that were found (Q, K), and whether places k and k + 1 tie (Q,).

        A row is −1 where fewer than k were found. Raises ValueError unless 1 <= k <= N − 1.
        """
        if not 1 <= k <= len(self._vectors_ND) - 1:
            msg = f"k must lie in [1, {len(self._vectors_ND) - 1}] for {len(self._vectors_ND)} items, got {k}"
            raise ValueError(msg)
        scores_QK, rows_QK = self._index.search(unit_rows(self._vectors_ND[queries_Q]), k + 2)  # the query, and place k + 1
        own_QK = rows_QK == queries_Q[:, None]
        order_QK = np.argsort(own_QK, axis=1, kind="stable")[:, : k + 1]  # the query itself last, the others as they come
        rows_QK, scores_QK = np.take_along_axis(rows_QK, order_QK, axis=1), np.take_along_axis(scores_QK, order_QK, axis=1)
        others_QK = np.where(rows_QK == queries_Q[:, None], -1, rows_QK)
        tied_Q = (scores_QK[:, k - 1] == scores_QK[:, k]) & (others_QK[:, k] >= 0)
        return others_QK[:, :k].astype(np.int64), tied_Q


def recall(exact_QK: npt.NDArray[np.integer[Any]], found_QK: npt.NDArray[np.integer[Any]]) -> float:
    """Return the share of exact neighbours that were found, in any order.

    >>> recall(np.array([[1, 2], [0, 3]]), np.array([[2, 4], [3, 0]]))
    0.75
    """
    if exact_QK.shape != found_QK.shape or exact_QK.ndim != 2 or not exact_QK.size:
        msg = f"neighbours must both have shape (queries >= 1, k >= 1), got {exact_QK.shape} and {found_QK.shape}"
        raise ValueError(msg)
    return float(np.mean([np.isin(exact, found).mean() for exact, found in zip(exact_QK, found_QK, strict=True)]))


def _faiss() -> ModuleType:
    try:
        import faiss  # optional: nothing else needs it
    except ImportError as error:
        msg = "approximate search needs faiss, which is not installed: pip install faiss-cpu, or search exactly"
        raise FaissMissing(msg, missing="faiss") from error
    module: ModuleType = faiss
    return module


def _hnsw(faiss: ModuleType, vectors_ND: npt.NDArray[np.floating[Any]], config: HNSW) -> Any:  # noqa: ANN401 - faiss has no types
    index = faiss.IndexHNSWFlat(vectors_ND.shape[1], config.links, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = config.build_width, config.search_width
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        _add(index, vectors_ND)
    finally:
        faiss.omp_set_num_threads(threads)
    return index


def _ivf(faiss: ModuleType, vectors_ND: npt.NDArray[np.floating[Any]], config: IVF) -> Any:  # noqa: ANN401 - faiss has no types
    num_rows, num_dimensions = vectors_ND.shape
    num_lists = min(config.num_lists or max(1, math.isqrt(num_rows)), num_rows)
    index = faiss.index_factory(num_dimensions, f"IVF{num_lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.nprobe = config.seed, min(config.num_probes, num_lists)
    index.cp.min_points_per_centroid = 1  # small galleries are not a mistake
    num_training = min(num_rows, _TRAINING_ROWS_PER_LIST * num_lists)
    training = np.sort(np.random.default_rng(config.seed).choice(num_rows, num_training, replace=False))
    index.train(unit_rows(vectors_ND[training]))
    _add(index, vectors_ND)
    return index


def _add(index: Any, vectors_ND: npt.NDArray[np.floating[Any]]) -> None:  # noqa: ANN401 - faiss has no types
    for start in range(0, len(vectors_ND), _CHUNK_ROWS):
        index.add(unit_rows(vectors_ND[start : start + _CHUNK_ROWS]))
