"""The step that brings in vectors made elsewhere, each table a modality by its name.

They belong to the item, whatever its content is now, and to the digest of the table. Memory: a table whole, 4 * D bytes per row.
"""

from __future__ import annotations

import pyarrow as pa

from sidlake.encoders.precomputed import load_precomputed, precomputed_id
from sidlake.pipelines.embed.known import add_vectors, wanting
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.warehouse.embeddings import embedding_rows

__all__ = ["embed_precomputed"]


def embed_precomputed(ctx: RunContext) -> StepReport:
    """Bring in the vectors of the recipe's precomputed tables.

    Raises:
        EncoderError: a table is missing or broken (ids, dimension, values).
    """
    items = ctx.read("items", ["item_id", "content_hash"])
    added = 0
    details: dict[str, int] = {}
    for modality, config in ctx.recipe.encoders.precomputed.items():
        ids, uppercase = items.column("item_id").to_pylist(), ctx.recipe.items.uppercase_ids
        found = load_precomputed(config, ids, root=ctx.recipe.folder, uppercase_ids=uppercase)
        # a refresh keeps the generation's vectors and takes those of new items from the table as it is now
        kept = ctx.base_state.encoders.get(modality) if ctx.job == "refresh" else None
        encoder_id = kept or precomputed_id(config, found.digest)
        have = wanting(ctx, items, modality, encoder_id)
        where = pa.compute.index_in(have.column("item_id"), value_set=items.column("item_id")).to_numpy()
        present = found.present_N[where]
        rows = embedding_rows(have.filter(pa.array(present)), modality, encoder_id, found.vectors_ND[where[present]])
        if len(rows):
            add_vectors(ctx, rows)
        ctx.state.encoders[modality] = encoder_id
        added += len(rows)
        details |= {f"{modality}_items": int(found.present_N.sum()), f"{modality}_unknown_ids": found.unknown_ids}
    return StepReport(step="embed_precomputed", skipped=not added, rows={"item_embeddings": added}, details=details)
