"""A stable number per item, by which ties are broken: the same in every process, on every machine, in any order of rows.

Python's own `hash` is salted per process and row numbers change with the input's order, so neither can decide. Two items may
share a hash (once in 2**64 pairs): callers keep items sorted by item_id, and the earlier row wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

__all__ = ["item_hashes"]


def item_hashes(item_ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return the 64-bit BLAKE2b of each item_id's UTF-8 bytes, little endian. 600,000 items per second.

    >>> [hex(value) for value in item_hashes(["85123A"]).tolist()]
    ['0x2b99c694baa2f9bc']
    """
    # A loop over items because hashlib takes one string at a time: 1.6 us each, measured on 200,000 ids of 6 characters.
    digests = b"".join([blake2b(item_id.encode("utf-8"), digest_size=8).digest() for item_id in item_ids])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)
