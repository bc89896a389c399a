"""Capacity one: every item gets a SID of its own, as near to its nearest codes as is free, and published SIDs never move.

1. Of the items whose nearest codes (raw SID) are the same and not yet taken, the nearest one keeps them.
2. The others, nearest first, take the nearest last-level code that is free under their prefix.
3. Where the prefix is full they spill, nearest first over the whole catalogue: from the deepest ancestor with a free SID
   below it, at each level to the nearest child with one. This succeeds as long as any SID is free.

"Nearest" is the float64 distance of `nearest`, so no batch, thread or device matters; ties break by item hash, then by position,
which is why rows come sorted by item_id. Not done here: a globally optimal matching (cubic), or moving published items to make
room.

Rule 2 plays the turns of one prefix together, rule 3 those of all prefixes (`spills` says why the outcome is the same).

Memory: about 100 bytes per item, plus the vectors of colliding items, a block at a time; other items' vectors are never asked for.

Shape suffixes: N items, M occupied SIDs, T both, L levels, D dimensions, K codes of a level, C colliding items, G prefixes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from sidlake.errors import CapacityError
from sidlake.tokenizers.numeric.increments import Implicit, Levels
from sidlake.tokenizers.numeric.nearest import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
)
from sidlake.tokenizers.uniqueness.full_prefixes import NOBODY, TAKEN, FreeSpace, Pace, spill_batch

__all__ = ["Assignment", "VectorsOf", "assign_unique", "check_codes", "prefix_ids"]

VectorsOf = Callable[[Int64Array], Float32Array]

_MASK_BYTES = 2**24  # bool mask of free codes per block of movers
_VALUES_PER_PART = 2**16  # 0.25 MiB of float32: residuals that stay in the L2 cache
_FIRST_TURNS = 32  # of a prefix, or of the spilled, played at once at first


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
    with threadpool_limits(limits=1, user_api="blas"):  # many products of few rows: two threads would mostly wait for each other
        resolver = _Resolver(raw_codes_NL, residual_norms_N, space, vectors_of)
        return _assign(raw_codes_NL, residual_norms_N, item_hashes_N, occupied, resolver)


def _assign(
    raw_codes_NL: Int32Array,
    norms_N: Float64Array,
    hashes_N: npt.NDArray[np.uint64],
    occupied_ML: Int32Array,
    resolver: _Resolver,
) -> Assignment:
    """Return what `assign_unique` returns, of arguments that fit."""
    num_items, widths = len(raw_codes_NL), resolver.widths
    codes_TL = np.concatenate([raw_codes_NL, occupied_ML]) if len(occupied_ML) else raw_codes_NL
    prefix_T = prefix_ids(codes_TL, widths)
    leaf_T = prefix_T * widths[-1] + codes_TL[:, -1]
    leaves_T, order_T = _sort_with_rows(leaf_T)
    movers = _movers(leaves_T, order_T, norms_N, hashes_N)
    spilled = resolver.fill_prefixes(movers, prefix_T, leaves_T)
    if len(spilled):
        placed_T = np.ones(len(leaf_T), dtype=bool)
        placed_T[spilled] = False
        leaf_T[:num_items] += resolver.codes_NL[:, -1] - raw_codes_NL[:, -1]
        order_T = _sort_with_rows(leaf_T)[1]
        taken_TL = np.concatenate([resolver.codes_NL, occupied_ML])
        resolver.spill(spilled, FreeSpace(taken_TL, order_T[placed_T[order_T]], widths))
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
    if np.isnan(residual_norms_N).any():
        msg = f"{np.count_nonzero(np.isnan(residual_norms_N))} of {num_items} residual norms are NaN: encode finite vectors"
        raise ValueError(msg)
    for name, codes in (("raw", raw_codes_NL), ("occupied", occupied_ML)):
        if codes.ndim != 2 or codes.shape[1] != len(widths) or not _in_range(codes, widths):
            msg = f"{name} codes of shape {codes.shape} do not fit the widths {widths}"
            raise ValueError(msg)
    capacity, needed = math.prod(widths), num_items + len(occupied_ML)
    if needed > capacity:
        msg = (
            f"{needed} SIDs needed ({num_items} new items, {len(occupied_ML)} published), but widths {widths} hold {capacity}: "
            "fit a new generation with wider or more levels"
        )
        raise CapacityError(msg, needed=needed, capacity=capacity)


def _in_range(codes_NL: Int32Array, widths: tuple[int, ...]) -> bool:
    if not len(codes_NL):
        return True
    return bool(codes_NL.min() >= 0) and all(bool(codes_NL[:, level].max() < width) for level, width in enumerate(widths))


def prefix_ids(codes_TL: npt.NDArray[np.integer], widths: tuple[int, ...]) -> Int64Array:
    """Return a number per distinct prefix of L - 1 codes, in the order of the prefixes; times the last width it never overflows.

    The codes as digits where 63 bits hold all SIDs, otherwise dense numbers.
    """
    dense = math.prod(widths) >= 2**63
    ids = np.zeros(len(codes_TL), dtype=np.int64)
    for level, width in enumerate(widths[:-1]):
        ids *= width
        ids += codes_TL[:, level]
        if dense:
            ids = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    return ids


def _sort_with_rows(values_T: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the values (none negative) ascending, and their rows: of equal values in ascending order.

    Sorts value and row packed in one number, seven times the speed of `np.argsort` (2 M, 50 ms against 360); where 63 bits do not
    hold both, a stable `np.argsort`.
    """
    bits = len(values_T).bit_length()
    if len(values_T) and int(values_T.max()) >= 2 ** (63 - bits):
        rows = np.argsort(values_T, kind="stable")
        return values_T[rows], rows
    packed = values_T << bits
    packed |= np.arange(len(values_T))
    packed.sort()
    return packed >> bits, packed & (2**bits - 1)


def _movers(leaves_T: Int64Array, order_T: Int64Array, norms_N: Float64Array, hashes_N: npt.NDArray[np.uint64]) -> Int64Array:
    """Return the rows that cannot keep their raw SID, in the order of their turns: distance, then hash, then row.

    Takes the sorted leaves of N items and the occupied SIDs behind them; `ValueError` where occupied SIDs repeat.
    """
    is_first = np.diff(leaves_T, prepend=-1) != 0
    shared = np.flatnonzero(~(is_first & np.append(is_first[1:], values=True)))  # runs of more than one
    group_C, rows_C = np.cumsum(is_first[shared]) - 1, order_T[shared]
    is_item = rows_C < len(norms_N)
    occupied_G = np.bincount(group_C[~is_item], minlength=len(shared))
    if (occupied_G > 1).any():
        num_occupied = len(leaves_T) - len(norms_N)
        msg = f"occupied SIDs repeat: {num_occupied} rows, {num_occupied - int((occupied_G - 1).clip(0).sum())} distinct"
        raise ValueError(msg)
    rows_C, group_C = rows_C[is_item], group_C[is_item]
    by_turn = _by_turn(rows_C, norms_N, hashes_N)
    group_C, turn_C = _sort_with_rows(group_C[by_turn])
    moves = (np.diff(group_C, prepend=-1) == 0) | (occupied_G[group_C] > 0)
    movers: Int64Array = rows_C[by_turn[np.sort(turn_C[moves])]]
    return movers


def _by_turn(rows_C: Int64Array, norms_N: Float64Array, hashes_N: npt.NDArray[np.uint64]) -> Int64Array:
    """Return the order of `rows_C` by distance, then hash, then row: as `np.lexsort`, which pays for ties where there are none."""
    order = np.argsort(norms_N[rows_C])
    ascending = norms_N[rows_C[order]]
    ties = np.concatenate([[False], ascending[1:] == ascending[:-1], [False]])
    tied = np.flatnonzero(ties[1:] | ties[:-1])
    if len(tied):
        some = order[tied]
        run = np.cumsum(~ties[tied])
        order[tied] = some[np.lexsort((rows_C[some], hashes_N[rows_C[some]], run))]
    return order


class _Resolver:
    """The codes as they are being decided; rules 2 and 3 change rows of `codes_NL` in place."""

    def __init__(self, raw_codes_NL: Int32Array, norms_N: Float64Array, space: Levels | Implicit, vectors_of: VectorsOf) -> None:
        self.raw_codes_NL = raw_codes_NL
        self.codes_NL = raw_codes_NL.astype(np.int32, copy=True)
        self.raw_norms_N = norms_N
        self.norms_N = norms_N.astype(np.float64, copy=True)
        self.space = space
        self.widths = space.widths
        self.vectors_of = vectors_of

    def fill_prefixes(self, movers: Int64Array, prefix_T: Int64Array, leaves_T: Int64Array) -> Int64Array:
        """Give `movers`, by turns, free last-level codes under their prefixes; return those for whom none was left, by turns."""
        prefix_C, turn_C = _sort_with_rows(prefix_T[movers])
        left = [np.empty(0, dtype=np.int64)]
        for block in self._blocks(prefix_C):
            fits = self._fill_block(movers[turn_C[block]], prefix_C[block], leaves_T)
            left.append(turn_C[block][~fits])
        spilled: Int64Array = movers[np.sort(np.concatenate(left))]
        return spilled

    def _blocks(self, prefix_C: Int64Array) -> Iterator[slice]:
        """Yield slices of whole prefixes (`prefix_C` ascending), as many as fit the mask and the space."""
        starts = np.append(np.flatnonzero(np.diff(prefix_C, prepend=-1)), len(prefix_C))
        first, most = 0, max(1, _MASK_BYTES // self.widths[-1])
        while first < len(starts) - 1:
            last = int(np.searchsorted(starts, starts[first] + most, side="right")) - 1
            last = max(first + 1, min(last, first + (self.space.prefixes_at_once or last)))
            yield slice(int(starts[first]), int(starts[last]))
            first = last

    def _fill_block(self, rows_C: Int64Array, prefix_C: Int64Array, leaves_T: Int64Array) -> BoolArray:
        """Resolve the prefixes side by side; return fits_C, which rows got a code. Rows come by prefix, then turn."""
        starts = np.flatnonzero(np.diff(prefix_C, prepend=-1))
        counts = np.diff(starts, append=len(rows_C))
        group_C, turn_C = np.repeat(np.arange(len(starts)), counts), np.arange(len(rows_C)) - np.repeat(starts, counts)
        free_GK = _free_codes(prefix_C[starts], leaves_T, self.widths[-1])
        fits_C: BoolArray = turn_C < np.count_nonzero(free_GK, axis=1)[group_C]
        rows = rows_C[fits_C]
        residual_CD = self._last_residuals(rows)
        holder_GK = np.where(free_GK, np.int32(NOBODY), np.int32(TAKEN))
        self.codes_NL[rows, -1] = self._play(residual_CD, self.raw_codes_NL[rows, :-1], holder_GK, group_C[fits_C], turn_C[fits_C])
        self.norms_N[rows] = self.space.last_norms(residual_CD, self.codes_NL[rows])
        return fits_C

    def _play(
        self, residual_CD: Float32Array, prefixes_CP: Int32Array, holder_GK: Int32Array, group_C: Int64Array, turn_C: Int64Array
    ) -> Int64Array:
        """Return codes_C: all ask for the nearest code that no earlier turn of their group holds, until nobody loses one.

        1.3 searches per mover where a third of the items collide; 10 us per mover in all at 256 codes, 384 dimensions, one core.
        """
        width, held = holder_GK.shape[1], holder_GK.reshape(-1)
        slot_C = np.empty(len(group_C), dtype=np.int64)
        pace, first = Pace(_FIRST_TURNS), 0
        while first <= turn_C.max(initial=-1):
            turn = np.flatnonzero((turn_C >= first) & (turn_C < first + pace.size))
            first += pace.size
            free_GK = holder_GK == NOBODY  # holders are of turns that are over, until these have asked once
            asking, rounds = turn, 0
            while len(asking):
                allowed = holder_GK[group_C[asking]] > turn_C[asking, None] if rounds else free_GK[group_C[asking]]
                codes = self.space.search(residual_CD[asking], prefixes_CP[asking], allowed)
                slot_C[asking] = group_C[asking] * width + codes
                np.minimum.at(held, slot_C[asking], turn_C[asking].astype(np.int32))
                asking = turn[held[slot_C[turn]] != turn_C[turn]]
                rounds += 1
            pace.after(rounds)
        codes_C: Int64Array = slot_C - group_C * width
        return codes_C

    def spill(self, rows: Int64Array, free: FreeSpace) -> None:
        """Place `rows`, in order of their turns, wherever a SID is free, as near as the tree allows."""
        block, pace = max(1, _MASK_BYTES // (4 * self.space.dim)), Pace(_FIRST_TURNS)
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            ascending = np.argsort(part)
            x_CD = np.empty((len(part), self.space.dim), dtype=np.float32)
            x_CD[ascending] = self._vectors(part[ascending])
            codes = spill_batch(x_CD, self.raw_codes_NL[part], free, self.space, first_turn=start, pace=pace)
            self.codes_NL[part] = codes
            for level in range(len(self.widths) - 1):
                x_CD = self.space.step(x_CD, level, codes)
            self.norms_N[part] = self.space.last_norms(x_CD, codes)

    def _vectors(self, rows: Int64Array) -> Float32Array:
        x_CD = np.ascontiguousarray(self.vectors_of(rows), dtype=np.float32)
        if x_CD.shape != (len(rows), self.space.dim):
            msg = f"vectors_of returned shape {x_CD.shape} for {len(rows)} rows of {self.space.dim} dimensions"
            raise ValueError(msg)
        return x_CD

    def _last_residuals(self, rows: Int64Array) -> Float32Array:
        """Return what the raw prefix leaves of the rows' vectors, by the very float32 steps of `ResidualKMeans.encode`."""
        ascending = np.argsort(rows)
        x_CD = self._vectors(rows[ascending])
        residual_CD = np.empty((len(rows), self.space.dim), dtype=np.float32)
        step = max(1, _VALUES_PER_PART // self.space.dim)
        for start in range(0, len(rows), step):  # parts that stay in the cache
            part = ascending[start : start + step]
            left, codes = x_CD[start : start + step], self.raw_codes_NL[rows[part]]
            for level in range(len(self.widths) - 1):
                left = self.space.step(left, level, codes)
            residual_CD[part] = left
        return residual_CD

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
