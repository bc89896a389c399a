"""Whether a text model tells texts apart: what it cannot read becomes one vector for many texts.

A model for English turns a text of a script that it does not know into unknown tokens, all alike: sixty texts, one vector, and SIDs
that say nothing. Nothing is wrong with any row, so it shows in the vectors alone. Texts that differ in capitals only, or behind
the model's longest input, may share a vector too; those are few.
"""

from __future__ import annotations

import polars as pl

__all__ = ["confused_share"]


def confused_share(rows: pl.DataFrame) -> float | None:
    """Return the share of items (text, vector) whose vector another item with another text has too; None without items.

    >>> confused_share(pl.DataFrame({"text": ["a", "a", "b", "c"], "vector": [1, 1, 2, 2]}))
    0.5
    """
    several = rows.select((pl.col("text").n_unique().over("vector") > 1).mean())
    return None if rows.is_empty() else float(several.item())
