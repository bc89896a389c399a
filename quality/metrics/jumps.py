"""What a list of items changes of the one before: how many are gone, how many have another content."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

__all__ = ["jumps"]

_CONTENT = ["item_id", "content_hash"]


def jumps(before: pa.Table, now: pa.Table) -> tuple[float, float]:
    """Return the shares of the items `before` (item_id, content_hash) that `now` lacks, and that it has with another content.

    >>> before = pa.table({"item_id": ["a", "b", "c", "d"], "content_hash": ["1", "2", "3", "4"]})
    >>> jumps(before, pa.table({"item_id": ["a", "b", "c"], "content_hash": ["1", "2", "5"]}))
    (0.25, 0.25)
    """
    if not len(before):
        return 0.0, 0.0
    rows, others = (pl.DataFrame(pl.from_arrow(table.select(_CONTENT))) for table in (before, now))
    found = rows.join(others, on="item_id", how="inner", suffix="_now")
    changed = found.filter(pl.col("content_hash") != pl.col("content_hash_now")).height
    return (len(before) - found.height) / len(before), changed / len(before)
