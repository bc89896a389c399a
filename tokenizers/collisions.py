"""Capacity one: every item gets a SID of its own, as near to its nearest codes as is free, and published SIDs never move.

1. Of the items whose nearest codes (raw SID) are the same and not yet taken, the nearest one keeps them.
2. The others, nearest first, take the nearest last-level code that is free under their prefix.
3. Where the prefix is full they spill, nearest first over the whole catalogue: from the deepest ancestor with a free SID
   below it, at each level to the nearest child with one. This succeeds as long as any SID is free.

"Nearest" is the float64 distance of `nearest`, so no batch, thread or device matters; ties break by item hash, then by position,
which is why rows come sorted by item_id. Not done here: a globally optimal matching (cubic), or moving published items to make
room.

Memory: about 100 bytes per item, plus the vectors of colliding items, a block at a time; other items' vectors are never asked for.

Shape suffixes: N items, M occupied SIDs, L levels, D dimensions, K codes of a level, C colliding items, G prefixes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.errors import CapacityError
from sidlake.tokenizers.increments import Implicit, Levels
from sidlake.tokenizers.nearest import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
)

__all__ = ["Assignment", "VectorsOf", "assign_unique", "check_codes", "prefix_ids"]

VectorsOf = Callable[[Int64Array], Float32Array]

_MASK_BYTES = 2**24  # bool mask of free codes per block of movers


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Assignment:
    """One unique SID per item, and what uniqueness cost.

    Attributes:
        codes_NL: int32, the SIDs; no two rows equal, none occupied before.
        moved_N: bool, whether the codes differ from the raw codes.
        spilled_N: bool, whether they left the raw prefix; implies moved.
        move_cost_N: float32, ‖x - dec(codes)‖ - ‖x - dec(raw)‖; 0 where not moved. A spilled item's may be negative and stays so:
            raw codes are chosen level by level, and that greedy choice is not always the best sum.
        residual_norm_N: float32, ‖x - dec(codes)‖.
    """

    codes_NL: Int32Array
    moved_N: BoolArray
    spilled_N: BoolArray
    move_cost_N: Float32Array
    residual_norm_N: Float32Array


def assign_unique(
    raw_codes_NL: Int32Array,
    residual_norms_N: Float64Array,
    item_hashes_N: npt.NDArray[np.uint64],
    *,
    centroids: Sequence[Float32Array] | Implicit,
    vectors_of: VectorsOf,
    occupied_codes_ML: Int32Array | None = None,
) -> Assignment:
    """Return unique SIDs for N items, rows sorted by item_id.

    `raw_codes_NL` and `residual_norms_N` are what `Tokenizer.encode_with_norms` returns; `centroids` what each code adds, one array
    per level, or `Implicit` where that depends on the codes before; ``vectors_of(rows)`` must return the float32 latents of these
    (ascending) rows; `occupied_codes_ML` are the SIDs already published.

    Raises `CapacityError` before anything is decided where N + M exceeds the code space, `ValueError` for arguments that do not
    fit.
    """
    space: Levels | Implicit = centroids if isinstance(centroids, Implicit) else Levels(centroids)
    widths = space.widths
    num_levels = len(widths)
    occupied = np.empty((0, num_levels), dtype=np.int32) if occupied_codes_ML is None else np.asarray(occupied_codes_ML)
    check_codes(raw_codes_NL, residual_norms_N, item_hashes_N, occupied, widths)
    prefix_T = prefix_ids(np.concatenate([raw_codes_NL, occupied]), widths)
    leaf_T = prefix_T * widths[-1] + np.concatenate([raw_codes_NL[:, -1], occupied[:, -1]])
    leaf_N, occupied_leaves = leaf_T[: len(raw_codes_NL)], leaf_T[len(raw_codes_NL) :]
    if len(_distinct(occupied_leaves)) != len(occupied):
        msg = f"occupied SIDs repeat: {len(occupied)} rows, {len(_distinct(occupied_leaves))} distinct"
        raise ValueError(msg)

    movers = _movers(leaf_N, residual_norms_N, item_hashes_N, occupied_leaves)
    resolver = _Resolver(raw_codes_NL, residual_norms_N, space, vectors_of)
    spilled = resolver.fill_prefixes(movers, prefix_T, _distinct(leaf_T))
    if len(spilled):
        spilled = spilled[np.lexsort((spilled, item_hashes_N[spilled], residual_norms_N[spilled]))]
        taken_TL = np.concatenate([resolver.codes_NL, occupied])
        order = np.argsort(prefix_T * widths[-1] + taken_TL[:, -1])  # prefix numbers are in the order of the prefixes
        resolver.spill(spilled, _FreeSpace(taken_TL[order[~np.isin(order, spilled)]], widths))
    return resolver.assignment(movers, spilled)


def check_codes(
    raw_codes_NL: Int32Array,
    residual_norms_N: Float64Array,
    item_hashes_N: npt.NDArray[np.uint64],
    occupied_ML: Int32Array,
    widths: tuple[int, ...],
) -> None:
    """Raise `ValueError` for arguments that do not fit, `CapacityError` for more SIDs than the widths hold."""
    num_items = len(raw_codes_NL)
    if residual_norms_N.shape != (num_items,) or item_hashes_N.shape != (num_items,):
        msg = f"{num_items} items, but residual norms {residual_norms_N.shape} and item hashes {item_hashes_N.shape}"
        raise ValueError(msg)
    for name, codes in (("raw", raw_codes_NL), ("occupied", occupied_ML)):
        if codes.ndim != 2 or codes.shape[1] != len(widths) or ((codes < 0) | (codes >= np.array(widths))).any():
            msg = f"{name} codes of shape {codes.shape} do not fit the widths {widths}"
            raise ValueError(msg)
    capacity, needed = math.prod(widths), num_items + len(occupied_ML)
    if needed > capacity:
        msg = (
            f"{needed} SIDs needed ({num_items} new items, {len(occupied_ML)} published), but widths {widths} hold {capacity}: "
            "fit a new generation with wider or more levels"
        )
        raise CapacityError(msg, needed=needed, capacity=capacity)


def prefix_ids(codes_TL: npt.NDArray[np.integer], widths: tuple[int, ...]) -> Int64Array:
    """Return a number per distinct prefix of L - 1 codes, in the order of the prefixes; dense, so it never overflows."""
    ids = np.zeros(len(codes_TL), dtype=np.int64)
    for level in range(len(widths) - 1):
        ids = ids * widths[level] + codes_TL[:, level]
        ids = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    return ids


def _distinct(values: Int64Array) -> Int64Array:
    """Return the distinct values (none negative), ascending: ten times the speed of `np.unique`, which hashes them first."""
    ascending = np.sort(values)
    distinct: Int64Array = ascending[np.diff(ascending, prepend=-1) != 0]
    return distinct


def _movers(leaf_N: Int64Array, norms_N: Float64Array, hashes_N: npt.NDArray[np.uint64], occupied_leaves: Int64Array) -> Int64Array:
    """Return the rows that cannot keep their raw SID, ordered by prefix, then leaf, then distance, hash, row."""
    _, inverse, counts = np.unique(leaf_N, return_inverse=True, return_counts=True)
    taken_N = np.isin(leaf_N, occupied_leaves)
    colliding = np.flatnonzero((counts[inverse] > 1) | taken_N)
    order = colliding[np.lexsort((colliding, hashes_N[colliding], norms_N[colliding], leaf_N[colliding]))]
    is_first = np.diff(leaf_N[order], prepend=-1) != 0
    rows: Int64Array = order[~is_first | taken_N[order]]
    return rows[np.lexsort((rows, hashes_N[rows], norms_N[rows]))]


class _Resolver:
    """The codes as they are being decided; phases 2 and 3 change rows of `codes_NL` in place."""

    def __init__(self, raw_codes_NL: Int32Array, norms_N: Float64Array, space: Levels | Implicit, vectors_of: VectorsOf) -> None:
        self.raw_codes_NL = raw_codes_NL
        self.codes_NL = raw_codes_NL.astype(np.int32, copy=True)
        self.raw_norms_N = norms_N
        self.norms_N = norms_N.astype(np.float64, copy=True)
        self.space = space
        self.widths = space.widths
        self.vectors_of = vectors_of

    def fill_prefixes(self, movers: Int64Array, prefix_T: Int64Array, taken_leaves: Int64Array) -> Int64Array:
        """Give `movers` (nearest first) free last-level codes under their prefixes; return the rows for which there were none."""
        width = self.widths[-1]
        num_free_G = width - np.bincount(taken_leaves // width)
        rows = movers[np.argsort(prefix_T[movers], kind="stable")]
        prefix_C = prefix_T[rows]
        rank_C = np.arange(len(rows)) - np.searchsorted(prefix_C, prefix_C)
        fits = rank_C < num_free_G[prefix_C]
        spilled, rows, prefix_C, rank_C = rows[~fits], rows[fits], prefix_C[fits], rank_C[fits]
        start = 0
        while start < len(rows):  # whole prefixes, as many as fit the block
            end = int(np.searchsorted(prefix_C, prefix_C[min(start + max(1, _MASK_BYTES // width), len(rows)) - 1], side="right"))
            self._fill_block(rows[start:end], prefix_C[start:end], rank_C[start:end], taken_leaves)
            start = end
        return spilled

    def _fill_block(self, rows: Int64Array, prefix_C: Int64Array, rank_C: Int64Array, taken_leaves: Int64Array) -> None:
        """Resolve the prefixes side by side: round r places the r-th mover of each prefix, which sees what earlier rounds took.

        About 25 us per mover at 256 codes and 384 dimensions on one core, most of it the matrix product and moving vectors; a round
        costs 0.2 ms however few movers it has.
        """
        residual_CD = self._last_residuals(rows)
        prefixes, group_C = np.unique(prefix_C, return_inverse=True)
        free_GK = _free_codes(prefixes, taken_leaves, self.widths[-1])
        order = np.argsort(rank_C, kind="stable")
        starts = np.searchsorted(rank_C[order], np.arange(rank_C.max() + 2))
        for start, end in itertools.pairwise(starts):
            turn = order[start:end]
            raw_CP = self.raw_codes_NL[rows[turn], :-1]
            codes = self.space.search_last(residual_CD[turn], raw_CP, free_GK[group_C[turn]])
            free_GK[group_C[turn], codes] = False
            self.codes_NL[rows[turn], -1] = codes
        self.norms_N[rows] = self.space.last_norms(residual_CD, self.codes_NL[rows])

    def spill(self, rows: Int64Array, space: _FreeSpace) -> None:
        """Place `rows` one by one wherever a SID is free, as near as the tree allows.

        One at a time because each takes room from the next: 0.6 ms per row at widths of 128 and 384 dimensions (4,872 rows), twice
        that where all codes are copies of one. Rare: only prefixes with more items than last-level codes spill.
        """
        block = max(1, _MASK_BYTES // (4 * self.space.dim))
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            ascending = np.sort(part)
            x_CD = self._vectors(ascending)
            for row in part.tolist():
                self._spill_one(row, x_CD[np.searchsorted(ascending, row)], space)

    def _spill_one(self, row: int, x_D: Float32Array, space: _FreeSpace) -> None:
        raw: list[int] = self.raw_codes_NL[row].tolist()
        codes: list[int] = []
        residual = x_D[None]
        for level in range(len(self.widths)):
            room_K = space.children_with_room(codes)
            # While on the raw path the raw code is the nearest of all: with room below it no search is needed.
            is_raw = codes == raw[:level] and bool(room_K[raw[level]])
            codes.append(raw[level] if is_raw else int(self.space.index(codes).search(residual, allowed_NK=room_K[None])[0]))
            if level + 1 < len(self.widths):
                residual = residual - self.space.index(codes[:level]).centroids_KD[codes[level]]
        space.take(codes)
        self.codes_NL[row] = codes
        self.norms_N[row] = self.space.last_norms(residual, self.codes_NL[row : row + 1])[0]

    def _vectors(self, rows: Int64Array) -> Float32Array:
        x_CD = np.ascontiguousarray(self.vectors_of(rows), dtype=np.float32)
        if x_CD.shape != (len(rows), self.space.dim):
            msg = f"vectors_of returned shape {x_CD.shape} for {len(rows)} rows of {self.space.dim} dimensions"
            raise ValueError(msg)
        return x_CD

    def _last_residuals(self, rows: Int64Array) -> Float32Array:
        """Return what the raw prefix leaves of the rows' vectors, by the very float32 steps of `ResidualKMeans.encode`."""
        ascending = np.argsort(rows, kind="stable")
        residual = np.empty((len(rows), self.space.dim), dtype=np.float32)
        residual[ascending] = self._vectors(rows[ascending])
        for level in range(len(self.widths) - 1):
            residual = self.space.step(residual, level, self.raw_codes_NL[rows])
        return residual

    def assignment(self, movers: Int64Array, spilled: Int64Array) -> Assignment:
        """Return the outcome."""
        moved, left_prefix = np.zeros(len(self.codes_NL), dtype=bool), np.zeros(len(self.codes_NL), dtype=bool)
        moved[movers] = True
        left_prefix[spilled] = True
        return Assignment(
            codes_NL=self.codes_NL,
            moved_N=moved,
            spilled_N=left_prefix,
            move_cost_N=(self.norms_N - self.raw_norms_N).astype(np.float32),
            residual_norm_N=self.norms_N.astype(np.float32),
        )


def _free_codes(prefixes_G: Int64Array, taken_leaves: Int64Array, width: int) -> BoolArray:
    """Return free_GK, the last-level codes under each prefix that no leaf of `taken_leaves` (sorted) uses."""
    first = np.searchsorted(taken_leaves, prefixes_G * width)
    counts = np.searchsorted(taken_leaves, (prefixes_G + 1) * width) - first
    group = np.repeat(np.arange(len(prefixes_G)), counts)
    leaf = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    free_GK = np.ones((len(prefixes_G), width), dtype=bool)
    free_GK[group, taken_leaves[leaf] % width] = False
    return free_GK


@dataclass(slots=True, eq=False)
class _Node:
    """A prefix met while spilling: its range in the sorted taken SIDs, and how many SIDs are taken below each child."""

    begin: int
    end: int
    taken_K: Int64Array


class _FreeSpace:
    """How many SIDs are taken below each prefix, counted when a prefix is first met and kept up to date by `take`.

    A prefix that was never met can have no later taker, so counting it from the SIDs sorted at the start is right.
    """

    def __init__(self, sorted_TL: npt.NDArray[np.integer], widths: tuple[int, ...]) -> None:
        self._columns = [np.ascontiguousarray(column) for column in sorted_TL.T]
        self._widths = widths
        self._capacity = [math.prod(widths[level:]) for level in range(len(widths) + 1)]
        self._nodes: dict[tuple[int, ...], _Node] = {}

    def children_with_room(self, prefix: list[int]) -> BoolArray:
        """Return bool_K, the codes after `prefix` below which a SID is free."""
        room_K: BoolArray = self._node(prefix).taken_K < self._capacity[len(prefix) + 1]
        return room_K

    def take(self, codes: list[int]) -> None:
        """Count `codes` as taken."""
        for level, code in enumerate(codes):
            self._node(codes[:level]).taken_K[code] += 1

    def _node(self, prefix: list[int]) -> _Node:
        key = tuple(prefix)
        if key not in self._nodes:
            begin, end = 0, len(self._columns[0])
            if prefix:
                parent, column = self._node(prefix[:-1]), self._columns[len(prefix) - 1]
                within = column[parent.begin : parent.end]
                begin = parent.begin + int(np.searchsorted(within, prefix[-1], side="left"))
                end = parent.begin + int(np.searchsorted(within, prefix[-1], side="right"))
            taken_K = np.bincount(self._columns[len(prefix)][begin:end], minlength=self._widths[len(prefix)])
            self._nodes[key] = _Node(begin, end, taken_K.astype(np.int64))
        return self._nodes[key]
