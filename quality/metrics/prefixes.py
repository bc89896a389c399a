"""Prefixes of semantic IDs as integers: codes packed into 64-bit words that sort as the SIDs do.

One sort serves every depth. A level takes as many bits as its width needs and never straddles two words; levels that fit into 64
bits make a single word (four levels of 65,536 codes, eight of 256), and NumPy sorts ten million of those in about a second. More
levels take more words and a slower sort, with the same results. Not done here: what the groups say (see `code_use`, `categories`
and `consecutive`).

Shapes: N items, L levels, W words of an item, d the first levels of a SID (its prefix of depth d, from 1 to L).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["observed_widths", "pack", "prefix_groups", "prefix_starts", "sort_words"]

UInt64Array = npt.NDArray[np.uint64]
Int64Array = npt.NDArray[np.int64]

_WORD_BITS = 64


def pack(codes_NL: npt.NDArray[np.integer[Any]], widths: Sequence[int]) -> UInt64Array:
    """Return each SID as words (W, N), the first the most significant; SIDs compare as their words do.

    Memory: 8·W bytes per item, twice that while packing. Raises ValueError where the number of widths is not the number of levels,
    or a code is outside [0, width).

    >>> pack(np.array([[1, 2], [0, 7]]), [2, 8]).tolist()
    [[10, 7]]
    """
    if codes_NL.ndim != 2 or codes_NL.shape[1] != len(widths) or not len(widths):
        msg = f"codes must have shape (items, {len(widths)}), one column per width, got {codes_NL.shape}"
        raise ValueError(msg)
    places = _places(widths)
    words_WN = np.zeros((places[-1][0] + 1, len(codes_NL)), dtype=np.uint64)
    for level, (width, (word, shift)) in enumerate(zip(widths, places, strict=True)):
        codes_N = codes_NL[:, level]
        if len(codes_N) and (int(codes_N.min()) < 0 or int(codes_N.max()) >= width):
            msg = f"level {level}: codes range over [{codes_N.min()}, {codes_N.max()}], allowed [0, {width - 1}]; pass their widths"
            raise ValueError(msg)
        words_WN[word] |= codes_N.astype(np.uint64) << np.uint64(shift)
    return words_WN


def sort_words(words_WN: UInt64Array) -> UInt64Array:
    """Return the words with their items in ascending order; a single word per item is sorted in place."""
    if len(words_WN) == 1:
        words_WN[0].sort()
        return words_WN
    return words_WN[:, np.lexsort(words_WN[::-1])]


def prefix_starts(sorted_WN: UInt64Array, widths: Sequence[int]) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield, for each depth from 1 to L, whether an item is the first of its prefix (N,), the items being in sorted order."""
    num_items = sorted_WN.shape[1]
    before_N = np.zeros(num_items, dtype=np.bool_)  # starts of the words already passed
    before_N[:1] = True
    word_now = 0
    for word, shift in _places(widths):
        if word != word_now:
            before_N[1:] |= sorted_WN[word_now, 1:] != sorted_WN[word_now, :-1]
            word_now = word
        prefix_N = sorted_WN[word] >> np.uint64(shift)
        starts_N = before_N.copy()
        starts_N[1:] |= prefix_N[1:] != prefix_N[:-1]
        yield starts_N


def prefix_groups(codes_NL: npt.NDArray[np.integer[Any]], widths: Sequence[int]) -> Iterator[Int64Array]:
    """Yield, for each depth from 1 to L, the number of each item's prefix (N,), counted from 0 in the order of the prefixes.

    Memory: 8·(W + 4) bytes per item. Raises ValueError as `pack` does.

    >>> [groups.tolist() for groups in prefix_groups(np.array([[5, 1], [0, 7], [5, 0]]), [6, 8])]
    [[1, 0, 1], [2, 0, 1]]
    """
    words_WN = pack(codes_NL, widths)
    order_N = np.argsort(words_WN[0]) if len(words_WN) == 1 else np.lexsort(words_WN[::-1])
    words_WN = words_WN[:, order_N]
    for starts_N in prefix_starts(words_WN, widths):
        groups_N = np.empty(len(codes_NL), dtype=np.int64)
        groups_N[order_N] = np.cumsum(starts_N) - 1
        yield groups_N


def observed_widths(*codes_NL: npt.NDArray[np.integer[Any]]) -> tuple[int, ...]:
    """Return the narrowest widths that hold all of these codes: the highest code of each level plus 1, and at least 1."""
    highest_L = np.max([codes.max(axis=0, initial=0) for codes in codes_NL], axis=0)
    return tuple((highest_L + 1).tolist())


def _places(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Return each level's word and its shift within it."""
    bits = [max(1, (int(width) - 1).bit_length()) for width in widths]  # never 0, so that no shift takes a whole word
    if min(widths) < 1 or max(bits) > _WORD_BITS:
        msg = f"widths must lie in [1, 2**{_WORD_BITS}], got {tuple(widths)}"
        raise ValueError(msg)
    words: list[list[int]] = [[]]
    for level_bits in bits:
        if sum(words[-1]) + level_bits > _WORD_BITS:
            words.append([])
        words[-1].append(level_bits)
    return [(word, sum(levels[place + 1 :])) for word, levels in enumerate(words) for place in range(len(levels))]
