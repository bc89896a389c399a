"""The trie as STATIC's decoders read it (github.com/youtube/static-constraint-decoding, arXiv 2602.22647).

The arrays are those of its `build_static_index`, made from the trie instead of sorted SIDs: state 0 is the root and every end,
code c of level 0 is state c + 1, and prefixes of two codes and more are numbered on from V + 1, level by level, in their order. A
row of ``packed_csr`` is an edge (code, next state), by parent state; the edges out of the root are in ``start_mask`` alone. V rows
of (V, 0) at the end are where compiled kernels may read past the last edge.

Shape suffixes: N items, L levels, V codes of the widest level, E edges below level 0, S states.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sidlake.errors import ContractError
from sidlake.generative.exports.catalogue_codes import CatalogueCodes
from sidlake.tokenizers.trie import Trie, build_trie

__all__ = ["StaticIndex", "static_index", "write_static"]

Int32s = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

_MAX_CELLS = 2**28
"""Cells of the dense table: 1.3 GB of masks and states."""


@dataclass(frozen=True, slots=True, eq=False)
class StaticIndex:
    """What `build_static_index(sids, vocab_size=V, dense_lookup_layers=D)` returns.

    Attributes:
        packed_csr: int32 (E + V, 2), code and next state of every edge, then V rows of padding.
        indptr: int32 (S + 2,), the edges of state s are ``indptr[s]:indptr[s + 1]``.
        layer_max_branches: int32 (L,), the most children of a node, per level.
        start_mask: bool (V,), codes that begin a SID.
        dense_mask: bool, V per dense level, prefixes that exist.
        dense_states: int32 of the same shape, their states; 0 elsewhere.
    """

    packed_csr: Int32s
    indptr: Int32s
    layer_max_branches: Int32s
    start_mask: Bools
    dense_mask: Bools
    dense_states: Int32s


def static_index(codes: CatalogueCodes, *, dense_levels: int = 2) -> StaticIndex:
    """Return STATIC's index of these items; memory: 8 bytes per edge and 5 per cell of V ** `dense_levels`.

    Raises `ContractError` where there are not more levels than dense ones, or where the dense table would not fit.
    """
    num_levels, vocabulary = len(codes.widths), max(codes.widths)
    if not 1 <= dense_levels < num_levels:
        msg = f"STATIC needs 1 to {num_levels - 1} dense levels for SIDs of {num_levels} codes, got {dense_levels}"
        raise ContractError(msg, levels=num_levels, dense_levels=dense_levels)
    if vocabulary**dense_levels > _MAX_CELLS:
        msg = f"{dense_levels} dense levels of {vocabulary} codes are more than {_MAX_CELLS:,} cells; take fewer dense levels"
        raise ContractError(msg, vocabulary=vocabulary, dense_levels=dense_levels)
    trie = build_trie(codes.codes_NL, codes.item_ids)
    states = _states(trie, vocabulary)
    packed_csr, indptr = _edges(trie, states, vocabulary)
    start_mask = np.zeros(vocabulary, dtype=bool)
    start_mask[trie.codes[0]] = True
    dense_mask, dense_states = _dense(trie, states[dense_levels - 1], (vocabulary,) * dense_levels)
    return StaticIndex(packed_csr, indptr, _branches(trie), start_mask, dense_mask, dense_states)


def write_static(codes: CatalogueCodes, folder: Path, *, dense_levels: int = 2) -> list[Path]:
    """Write `static_index.npz` (no pickle in it) and `items.parquet` (item_id, codes; in the order of the SIDs) to `folder`.

    Read it by ``np.load("static_index.npz")``; torch takes each array through `torch.from_numpy`.
    """
    arrays = asdict(static_index(codes, dense_levels=dense_levels))
    np.savez(folder / "static_index.npz", **arrays)
    items = pa.table({"item_id": codes.item_ids, "codes": pa.array(list(codes.codes_NL), pa.list_(pa.int32()))})
    pq.write_table(items, folder / "items.parquet")
    return [folder / "static_index.npz", folder / "items.parquet"]


def _states(trie: Trie, vocabulary: int) -> list[Int32s]:
    """Return the state of every node per level; ends are state 0."""
    states, following = [trie.codes[0].astype(np.int32) + 1], vocabulary + 1
    for codes in trie.codes[1:-1]:
        states.append(np.arange(following, following + len(codes), dtype=np.int32))
        following += len(codes)
    return [*states, np.zeros(len(trie.codes[-1]), dtype=np.int32)]


def _edges(trie: Trie, states: list[Int32s], vocabulary: int) -> tuple[Int32s, Int32s]:
    num_states = vocabulary + 1 + sum(len(codes) for codes in trie.codes[1:-1])
    counts = np.zeros(num_states, dtype=np.int64)
    for level, of_level in enumerate(states[:-1]):
        counts[of_level] = trie.child_end[level] - trie.child_start[level]
    indptr = np.concatenate([[0], np.cumsum(counts), [counts.sum() + vocabulary]]).astype(np.int32)
    tokens = np.concatenate([*trie.codes[1:], np.full(vocabulary, vocabulary)])
    nexts = np.concatenate([*states[1:], np.zeros(vocabulary)])
    return np.ascontiguousarray(np.stack([tokens, nexts], axis=1), dtype=np.int32), indptr


def _branches(trie: Trie) -> Int32s:
    inner = zip(trie.child_start[:-1], trie.child_end[:-1], strict=True)
    return np.array([len(trie.codes[0]), *((end - start).max() for start, end in inner)], dtype=np.int32)


def _dense(trie: Trie, states: Int32s, shape: tuple[int, ...]) -> tuple[Bools, Int32s]:
    mask, table = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.int32)
    prefix = tuple(_codes_of_nodes(trie, level, len(shape) - 1) for level in range(len(shape)))
    mask[prefix], table[prefix] = True, states
    return mask, table


def _codes_of_nodes(trie: Trie, level: int, down_to: int) -> Int32s:
    """Return the code at `level` of the prefix of every node of level `down_to`."""
    codes = trie.codes[level]
    for between in range(level, down_to):
        codes = np.repeat(codes, trie.child_end[between] - trie.child_start[between])
    return codes
