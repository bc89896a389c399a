"""The loops over rows that NumPy has no pass for, compiled by Numba: rows put together byte by byte, and their BLAKE2b summed.

Through `hashlib` a row of 124 bytes costs 0.6 to 0.9 µs and the interpreter's lock; here 0.27 µs, and no lock. It computes
`hashlib.blake2b` to the bit (RFC 7693, 64 bytes, no key), which the tests compare. Compiled at first use, in about six seconds, and
cached on disk after that.

Shape suffixes: N rows, B bytes.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["Bytes", "Places", "put", "sum_hashes"]

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]

# fmt: off
_START = np.array([
    0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
    0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
], dtype=np.uint64)
_ORDER = np.array([
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4], [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13], [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11], [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5], [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
], dtype=np.int64)
# fmt: on
_LENGTH_64 = np.uint64(0x01010040)  # no key, a digest of 64 bytes


@numba.njit(nogil=True, cache=True, error_model="numpy")
def put(
    out_B: Bytes, places_N: Places, valid_N: npt.NDArray[np.bool_], head_B: Bytes, absent_B: Bytes, counted: bool,
    counts_N: Places, data_B: Bytes, starts_N: Places, stops_N: Places,
) -> None:  # fmt: skip
    """Write each row into `out` from its place on, and move the place behind it.

    Where the row has no value that is `absent`; else `head`, where `counted` its count as four bytes, and its bytes of `data`.
    """
    for n in range(places_N.shape[0]):
        at = places_N[n]
        if not valid_N[n]:
            for b in range(absent_B.shape[0]):
                out_B[at + b] = absent_B[b]
            places_N[n] = at + absent_B.shape[0]
            continue
        for b in range(head_B.shape[0]):
            out_B[at + b] = head_B[b]
        at += head_B.shape[0]
        if counted:
            count = counts_N[n]
            for b in range(4):
                out_B[at + b] = np.uint8((count >> (8 * b)) & 0xFF)
            at += 4
        start = starts_N[n]
        for b in range(stops_N[n] - start):
            out_B[at + b] = data_B[start + b]
        places_N[n] = at + stops_N[n] - start


@numba.njit(nogil=True, cache=True, error_model="numpy")
def sum_hashes(data_B: Bytes, offsets: Places) -> UInt64Array:
    """Return the sum of the BLAKE2b digests of ``data[offsets[n]:offsets[n + 1]]`` modulo 2**512, as eight words, lowest first."""
    sum_8 = np.zeros(8, dtype=np.uint64)
    state_8 = np.empty(8, dtype=np.uint64)
    words_16 = np.empty(16, dtype=np.uint64)
    for n in range(offsets.shape[0] - 1):
        _hash(data_B, offsets[n], offsets[n + 1], state_8, words_16)
        carry = np.uint64(0)
        for word in range(8):
            once = sum_8[word] + state_8[word]
            twice = once + carry
            carry = np.uint64(once < state_8[word]) + np.uint64(twice < once)
            sum_8[word] = twice
    return sum_8


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _hash(data_B: Bytes, start: int, stop: int, state_8: UInt64Array, words_16: UInt64Array) -> None:
    for word in range(8):
        state_8[word] = _START[word]
    state_8[0] ^= _LENGTH_64
    at = start
    while stop - at > 128:
        _load(data_B, at, at + 128, words_16)
        at += 128
        _compress(state_8, words_16, np.uint64(at - start), np.uint64(0))
    _load(data_B, at, stop, words_16)
    _compress(state_8, words_16, np.uint64(stop - start), np.uint64(0xFFFFFFFFFFFFFFFF))


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _load(data_B: Bytes, start: int, stop: int, words_16: UInt64Array) -> None:
    full = (stop - start) // 8
    for word in range(full):
        at, value = start + 8 * word, np.uint64(0)
        for b in range(8):
            value |= np.uint64(data_B[at + b]) << np.uint64(8 * b)
        words_16[word] = value
    for word in range(full, 16):
        words_16[word] = np.uint64(0)
    for b in range(start + 8 * full, stop):
        words_16[full] |= np.uint64(data_B[b]) << np.uint64(8 * (b - start - 8 * full))


@numba.njit(nogil=True, inline="always")
def _turn(value: np.uint64, by: int) -> np.uint64:
    return (value >> np.uint64(by)) | (value << np.uint64(64 - by))


@numba.njit(nogil=True, inline="always")
def _mix(
    a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, x: np.uint64, y: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    a = a + b + x
    d = _turn(d ^ a, 32)
    c = c + d
    b = _turn(b ^ c, 24)
    a = a + b + y
    d = _turn(d ^ a, 16)
    c = c + d
    b = _turn(b ^ c, 63)
    return a, b, c, d


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _compress(state_8: UInt64Array, words_16: UInt64Array, length: np.uint64, last: np.uint64) -> None:
    """Mix a block of 16 words into the state (RFC 7693, 3.2); sixteen variables, because LLVM keeps those in registers."""
    v0, v1, v2, v3 = state_8[0], state_8[1], state_8[2], state_8[3]
    v4, v5, v6, v7 = state_8[4], state_8[5], state_8[6], state_8[7]
    v8, v9, v10, v11 = _START[0], _START[1], _START[2], _START[3]
    v12, v13, v14, v15 = _START[4] ^ length, _START[5], _START[6] ^ last, _START[7]
    for turn in range(12):
        order = _ORDER[turn]
        v0, v4, v8, v12 = _mix(v0, v4, v8, v12, words_16[order[0]], words_16[order[1]])
        v1, v5, v9, v13 = _mix(v1, v5, v9, v13, words_16[order[2]], words_16[order[3]])
        v2, v6, v10, v14 = _mix(v2, v6, v10, v14, words_16[order[4]], words_16[order[5]])
        v3, v7, v11, v15 = _mix(v3, v7, v11, v15, words_16[order[6]], words_16[order[7]])
        v0, v5, v10, v15 = _mix(v0, v5, v10, v15, words_16[order[8]], words_16[order[9]])
        v1, v6, v11, v12 = _mix(v1, v6, v11, v12, words_16[order[10]], words_16[order[11]])
        v2, v7, v8, v13 = _mix(v2, v7, v8, v13, words_16[order[12]], words_16[order[13]])
        v3, v4, v9, v14 = _mix(v3, v4, v9, v14, words_16[order[14]], words_16[order[15]])
    state_8[0] ^= v0 ^ v8
    state_8[1] ^= v1 ^ v9
    state_8[2] ^= v2 ^ v10
    state_8[3] ^= v3 ^ v11
    state_8[4] ^= v4 ^ v12
    state_8[5] ^= v5 ^ v13
    state_8[6] ^= v6 ^ v14
    state_8[7] ^= v7 ^ v15
