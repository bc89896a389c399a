"""Whether the run's text model tells its texts apart (`quality.metrics.confused_texts`), read from the warehouse."""

from __future__ import annotations

import polars as pl

from sidlake.pipelines.run import RunContext
from sidlake.quality.gates import Metric
from sidlake.quality.metrics.confused_texts import confused_share

__all__ = ["text_metrics"]


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
