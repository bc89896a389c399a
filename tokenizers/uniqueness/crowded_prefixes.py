"""Crowded prefixes, one by one, for strategies that place their items together, and the finish that makes any placement unique.

Shape suffixes: N items, M occupied SIDs, L levels, C items of one prefix, F free last-level codes of it, D latent dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.numeric.increments import Implicit, Levels
from sidlake.tokenizers.numeric.nearest import Float32Array, Float64Array, Int32Array, Int64Array, squared_distances_f64
from sidlake.tokenizers.uniqueness.reassign import Assignment, VectorsOf, assign_unique, check_codes, prefix_ids

__all__ = ["Contest", "RawCodes", "contests", "finish"]


def finish(
    raw: RawCodes,
    placed: dict[int, int],
    *,
    centroids: Sequence[Float32Array] | Implicit,
    vectors_of: VectorsOf,
    occupied_codes_ML: Int32Array | None,
) -> Assignment:
    """Return unique SIDs where some colliding rows were placed by another strategy and the rest is for `assign_unique`.

    `placed` maps rows to their last-level code: together with the rows of prefixes without a collision they must be unique. Rows
    that collide and are not in `placed` get what is free then.
    """
    space: Levels | Implicit = centroids if isinstance(centroids, Implicit) else Levels(centroids)
    codes_NL = raw.codes_NL.astype(np.int32, copy=True)
    rows = np.fromiter(placed, np.int64, len(placed))
    codes_NL[rows, -1] = np.fromiter(placed.values(), np.int32, len(placed))
    open_N = np.zeros(len(codes_NL), dtype=bool)
    open_N[raw.contested] = True
    open_N[rows] = False
    rest = np.flatnonzero(open_N)
    occupied = [] if occupied_codes_ML is None else [occupied_codes_ML]
    after = assign_unique(
        raw.codes_NL[rest],
        raw.norms_N[rest],
        raw.hashes_N[rest],
        centroids=centroids,
        vectors_of=lambda some: vectors_of(rest[some]),
        occupied_codes_ML=np.concatenate([codes_NL[~open_N], *occupied]),
    )
    codes_NL[rest] = after.codes_NL
    norms_N = raw.norms_N.astype(np.float64, copy=True)
    moved = np.sort(rows[codes_NL[rows, -1] != raw.codes_NL[rows, -1]])
    residual = np.ascontiguousarray(vectors_of(moved), dtype=np.float32)
    for level in range(len(space.widths) - 1):
        residual = space.step(residual, level, codes_NL[moved])
    norms_N[moved] = space.last_norms(residual, codes_NL[moved])
    norms_N[rest] = after.residual_norm_N
    spilled_N = np.zeros(len(codes_NL), dtype=bool)
    spilled_N[rest] = after.spilled_N
    return Assignment(
        codes_NL=codes_NL,
        moved_N=(codes_NL != raw.codes_NL).any(axis=1),
        spilled_N=spilled_N,
        move_cost_N=np.where((codes_NL != raw.codes_NL).any(axis=1), norms_N - raw.norms_N, 0.0).astype(np.float32),
        residual_norm_N=norms_N.astype(np.float32),
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RawCodes:
    """Raw codes with what decides between them, and the rows whose prefix has a collision (``contested``, ascending)."""

    codes_NL: Int32Array
    norms_N: Float64Array
    hashes_N: npt.NDArray[np.uint64]
    contested: Int64Array


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Contest:
    """The items of one prefix that must share its free codes.

    Attributes:
        rows: int64 [C], in the order of distance to the raw code, then item hash, then row.
        free: int64 [F], the last-level codes that no published SID holds, ascending.
        squared_CF: float64, squared distances of the items' latents to the reconstruction that each free code would give.
    """

    rows: Int64Array
    free: Int64Array
    squared_CF: Float64Array


def contests(
    raw_codes_NL: Int32Array,
    norms_N: Float64Array,
    hashes_N: npt.NDArray[np.uint64],
    *,
    centroids: Sequence[Float32Array] | Implicit,
    vectors_of: VectorsOf,
    occupied_codes_ML: Int32Array | None,
) -> tuple[RawCodes, Iterator[Contest]]:
    """Return the raw codes and, one by one, the contests of the prefixes where raw codes collide, also with published SIDs.

    All items of such a prefix take part, also those alone on their code; full prefixes are left out. Raises as `assign_unique`.
    """
    space: Levels | Implicit = centroids if isinstance(centroids, Implicit) else Levels(centroids)
    width = space.widths[-1]
    occupied = np.empty((0, len(space.widths)), dtype=np.int32) if occupied_codes_ML is None else np.asarray(occupied_codes_ML)
    check_codes(raw_codes_NL, norms_N, hashes_N, occupied, space.widths)
    num_items = len(raw_codes_NL)
    prefix_T = prefix_ids(np.concatenate([raw_codes_NL, occupied]), space.widths)
    leaf_T = prefix_T * width + np.concatenate([raw_codes_NL[:, -1], occupied[:, -1]])
    leaves, counts = np.unique(leaf_T, return_counts=True)
    crowded = np.unique(leaves[counts > 1] // width)
    contested = np.flatnonzero(np.isin(prefix_T[:num_items], crowded))
    order = contested[np.lexsort((contested, hashes_N[contested], norms_N[contested], prefix_T[contested]))]
    taken = np.sort(leaf_T[num_items:])

    def one_by_one() -> Iterator[Contest]:
        starts = np.flatnonzero(np.diff(prefix_T[order], prepend=-1))
        for rows in np.split(order, starts[1:]) if len(order) else []:
            prefix = int(prefix_T[rows[0]])
            held = taken[np.searchsorted(taken, prefix * width) : np.searchsorted(taken, (prefix + 1) * width)] - prefix * width
            free = np.setdiff1d(np.arange(width), held)
            if not len(free):
                continue
            ascending = np.argsort(rows)
            residual = np.empty((len(rows), space.dim), dtype=np.float32)
            residual[ascending] = vectors_of(rows[ascending])
            for level in range(len(space.widths) - 1):
                residual = space.step(residual, level, raw_codes_NL[rows])
            candidates = space.index(raw_codes_NL[rows[0], :-1].tolist()).centroids_KD[free]
            yield Contest(rows=rows, free=free, squared_CF=squared_distances_f64(residual, candidates))

    raw = RawCodes(codes_NL=raw_codes_NL, norms_N=norms_N, hashes_N=hashes_N, contested=contested)
    return raw, one_by_one()
