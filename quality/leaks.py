"""Which events that sessions ask for were learned from: the leak that no table of results shows."""

from __future__ import annotations

import polars as pl

__all__ = ["EVENT_KEYS", "leaked"]

EVENT_KEYS = ["user_id", "ts", "item_id"]
"""What tells two events apart."""


def leaked(asked: pl.DataFrame, learned: pl.DataFrame | None) -> pl.DataFrame:
    """Return the rows of `asked` (user_id, ts, item_id) that are among `learned`, in their order.

    >>> asked = pl.DataFrame({"user_id": ["u", "u"], "ts": [1, 2], "item_id": ["a", "b"]})
    >>> leaked(asked, asked[:1])["item_id"].to_list()
    ['a']
    """
    return asked.clear() if learned is None else asked.join(learned, on=EVENT_KEYS, how="semi", maintain_order="left")
