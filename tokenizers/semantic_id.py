"""Semantic IDs as text and as numbers: codes ↔ ``<a_12><b_7><c_33>`` ↔ one int64.

The letter of a token is its level, so a token means the same wherever it stands. The key is mixed radix with the last level
fastest: items that share a prefix have neighbouring keys, and sorting by key sorts by SID. Not done here: making codes
(see `residual_kmeans`) or making them unique (see `collisions`).

Shape suffixes: N items, L levels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["code_tokens", "codes_from_keys", "format_sids", "parse_sid", "sid_keys"]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SID = re.compile(r"(?:<[a-z]_(?:0|[1-9][0-9]*)>)+")
_TOKEN = re.compile(r"<([a-z])_([0-9]+)>")
_MAX_KEY = 2**63 - 1


def format_sids(codes_NL: npt.ArrayLike) -> list[str]:
    """Return each row's codes as one string; inverse of `parse_sid`. A million SIDs of three levels per second.

    >>> format_sids([[12, 7, 33], [0, 1, 2]])
    ['<a_12><b_7><c_33>', '<a_0><b_1><c_2>']
    """
    codes = _as_codes(codes_NL)
    sids = np.full(len(codes), "", dtype=object)
    for level in range(codes.shape[1]):
        values, inverse = np.unique(codes[:, level], return_inverse=True)
        tokens = np.array([f"<{_LETTERS[level]}_{value}>" for value in values.tolist()], dtype=object)
        sids += tokens[inverse]
    return [str(sid) for sid in sids]


def code_tokens(widths: Sequence[int]) -> list[list[str]]:
    """Return the tokens that `format_sids` spells codes with, per level, by code; `ValueError` beyond 26 levels.

    >>> code_tokens((2, 1))
    [['<a_0>', '<a_1>'], ['<b_0>']]
    """
    widths_L = _as_widths(widths)
    if len(widths_L) > len(_LETTERS):
        msg = f"levels are spelled by {len(_LETTERS)} letters, got {len(widths_L)} levels"
        raise ValueError(msg)
    return [[f"<{letter}_{code}>" for code in range(width)] for letter, width in zip(_LETTERS, widths_L, strict=False)]


def parse_sid(sid: str) -> tuple[int, ...]:
    """Return the codes that `sid` spells; `ValueError` unless it is exactly what `format_sids` writes.

    >>> parse_sid("<a_12><b_7><c_33>")
    (12, 7, 33)
    """
    tokens = _TOKEN.findall(sid) if _SID.fullmatch(sid) else []
    if not tokens or "".join(letter for letter, _ in tokens) != _LETTERS[: len(tokens)]:
        msg = f"{sid!r} is not a semantic ID: expected one token per level in order, such as <a_12><b_7><c_33>"
        raise ValueError(msg)
    return tuple(int(code) for _, code in tokens)


def sid_keys(codes_NL: npt.ArrayLike, widths: Sequence[int]) -> npt.NDArray[np.int64] | None:
    """Return one key per SID in ``[0, prod(widths))``, or None where that product exceeds 2**63 - 1.

    >>> sid_keys([[0, 0, 1], [1, 0, 0]], (2, 3, 4)).tolist()
    [1, 12]
    """
    codes = _as_codes(codes_NL)
    widths_L = _as_widths(widths)
    if codes.shape[1] != len(widths_L):
        msg = f"codes have {codes.shape[1]} levels, widths have {len(widths_L)}: {widths_L}"
        raise ValueError(msg)
    if (codes >= np.array(widths_L)).any():
        worst = codes.max(axis=0).tolist()
        msg = f"codes go up to {worst}, the widths allow less than {widths_L}"
        raise ValueError(msg)
    if math.prod(widths_L) > _MAX_KEY:
        return None
    keys = np.zeros(len(codes), dtype=np.int64)
    for level, width in enumerate(widths_L):
        keys = keys * width + codes[:, level]
    return keys


def codes_from_keys(keys_N: npt.ArrayLike, widths: Sequence[int]) -> npt.NDArray[np.int32]:
    """Return codes_NL for keys made by `sid_keys` with the same `widths`.

    >>> codes_from_keys([1, 12], (2, 3, 4)).tolist()
    [[0, 0, 1], [1, 0, 0]]
    """
    widths_L = _as_widths(widths)
    keys = np.asarray(keys_N, dtype=np.int64)
    capacity = math.prod(widths_L)
    if capacity > _MAX_KEY:
        msg = f"widths {widths_L} span more than 63 bits: such SIDs have no key"
        raise ValueError(msg)
    if keys.size and (keys.min() < 0 or keys.max() >= capacity):
        msg = f"keys lie in [{keys.min()}, {keys.max()}], allowed is [0, {capacity}) for widths {widths_L}"
        raise ValueError(msg)
    codes = np.empty((len(keys), len(widths_L)), dtype=np.int32)
    for level in reversed(range(len(widths_L))):
        keys, codes[:, level] = np.divmod(keys, widths_L[level])
    return codes


def _as_codes(codes_NL: npt.ArrayLike) -> npt.NDArray[np.int64]:
    codes = np.asarray(codes_NL)
    if codes.ndim != 2 or not 1 <= codes.shape[1] <= len(_LETTERS) or not np.issubdtype(codes.dtype, np.integer):
        msg = f"codes must be integers of shape [items, levels] with 1 to 26 levels, got {codes.dtype} {codes.shape}"
        raise ValueError(msg)
    if codes.size and codes.min() < 0:
        msg = f"codes must be >= 0, got {codes.min()}"
        raise ValueError(msg)
    return codes.astype(np.int64)


def _as_widths(widths: Sequence[int]) -> tuple[int, ...]:
    widths_L = tuple(int(width) for width in widths)
    if not widths_L or min(widths_L) < 1 or max(widths_L) > 2**31:
        msg = f"widths must be integers in [1, 2**31], one per level, got {widths_L}"
        raise ValueError(msg)
    return widths_L
