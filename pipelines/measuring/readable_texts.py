"""Whether the text model tells the texts of a catalogue apart: what it cannot read becomes one vector for many texts.

A model for English turns a text of a script that it does not know into unknown tokens, all alike: sixty texts, one vector, and SIDs
that say nothing. Nothing is wrong with any row, so it shows in the vectors alone. Texts that differ in capitals only, or behind
the model's longest input, may share a vector too; those are few.
"""

from __future__ import annotations

import polars as pl

from sidlake.pipelines.run import RunContext
from sidlake.quality.gates import Metric

__all__ = ["confused_share", "text_metrics"]


def text_metrics(ctx: RunContext) -> list[Metric]:
    """Return confused_text_share of the run's items; its value is None where no text is embedded. Memory: 8 bytes per vector."""
    encoder = ctx.state.encoders.get("text")
    if encoder is None or "text" not in ctx.recipe.encoders.fusion:
        return [Metric(metric="confused_text_share")]
    items = pl.DataFrame(pl.from_arrow(ctx.read("items", ["item_id", "content_hash", "text"])))
    embeddings = ctx.warehouse.scan("item_embeddings", version=ctx.tables["item_embeddings"])
    of_text = embeddings.filter((pl.col("modality") == "text") & (pl.col("encoder_id") == encoder))
    vectors = of_text.select("item_id", "content_hash", pl.col("vector").hash().alias("vector")).collect()
    texts = items.select("item_id", "content_hash", "text")
    return [Metric(metric="confused_text_share", value=confused_share(texts.join(vectors, on=["item_id", "content_hash"])))]


def confused_share(rows: pl.DataFrame) -> float | None:
    """Return the share of items (text, vector) whose vector another item with another text has too; None without items.

    >>> confused_share(pl.DataFrame({"text": ["a", "a", "b", "c"], "vector": [1, 1, 2, 2]}))
    0.5
    """
    several = rows.select((pl.col("text").n_unique().over("vector") > 1).mean())
    return None if rows.is_empty() else float(several.item())
