"""The step that learns item vectors from who bought what together. A refresh keeps them: an item without gets its modality's mean.

Memory: 4 * D bytes per item.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from sidlake.encoders.behaviour import behaviour_id, fit_behaviour
from sidlake.errors import ContractError
from sidlake.pipelines.embed.known import add_vectors, taken_over
from sidlake.pipelines.fit_inputs.split import ordered_events, training_events
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.warehouse.embeddings import embedding_rows

__all__ = ["embed_behaviour"]


def embed_behaviour(ctx: RunContext) -> StepReport:
    """Learn item vectors from training events only."""
    config = ctx.recipe.encoders.behaviour
    if config is None:
        return StepReport(step="embed_behaviour", skipped=True)
    items = ctx.read("items", ["item_id", "content_hash"])
    events = training_events(ordered_events(ctx.read("interactions")), ctx.recipe.split)
    users_N, items_N = _indexed(events, items.column("item_id"))
    learned_from = hashlib.sha256(
        users_N.tobytes() + items_N.tobytes() + "\n".join(items.column("item_id").to_pylist()).encode()
    ).hexdigest()
    encoder_id = behaviour_id(config, learned_from)
    added = 0
    known = taken_over(ctx, encoder_id)  # all or none: the id covers what they are made of
    if not known:
        result = fit_behaviour(users_N, items_N, len(items), config)
        present = items.filter(pa.array(result.present_I))
        rows = embedding_rows(present, "behaviour", encoder_id, result.vectors_ID[result.present_I])
        added = len(rows)
        add_vectors(ctx, rows)
    ctx.state.encoders["behaviour"] = encoder_id
    details = {"encoder": encoder_id, "events": len(events), "items_without_behaviour": len(items) - known - added}
    return StepReport(step="embed_behaviour", rows={"item_embeddings": added}, details=details)


def _indexed(events: pl.DataFrame, item_ids: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    users_N = events["user_id"].rle_id().to_numpy().astype(np.int64)
    rows = pa.compute.index_in(events["item_id"].to_arrow().cast(pa.string()), value_set=item_ids)
    if rows.null_count:
        msg = f"{rows.null_count:,} interactions name items that the catalogue does not have; run the ingest step again"
        raise ContractError(msg, count=rows.null_count)
    return users_N, rows.to_numpy().astype(np.int64)
