"""Whether new items are embedded as the published ones were: a swapped encoder shows in vectors that have no neighbours.

An encoder's id covers its weights and settings, but not what runs it, nor a table that somebody wrote to. So each modality is asked
how near new items lie to published ones (`quality.foreigners`), by the encoder's own vectors. The distance to codes cannot tell:
small catalogues fit their codes so closely that every new item lies far from them.

Not done here: behaviour, which no refresh embeds anew. Memory: 4 * D bytes of `_PUBLISHED` + `_NEW` items, and a block of cosines.

Shapes: N items, P published ones and Q new ones in the sample, D dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from sidlake.pipelines.run import RunContext
from sidlake.quality.foreigners import least_share_far, sample
from sidlake.warehouse.embeddings import BY_ITEM, matrix_for

__all__ = ["foreign_items"]

_PUBLISHED, _NEW = 20_000, 2_000  # items sampled


def foreign_items(ctx: RunContext, items: pa.Table) -> tuple[npt.NDArray[np.bool_], float | None]:
    """Return which of `items` (item_id, content_hash) are new and far from all published ones, and the least share that is.

    The share is the lower end of the 95 % interval of new items that are far, of the modality where it is greatest; None where
    nothing is new, or fewer than 50 items were published by the same encoder. Deterministic.
    """
    far_N, shares = np.zeros(len(items), bool), []
    base, encoders = ctx.base, ctx.state.encoders
    if base is None:
        return far_N, None
    new_N = _new(ctx, items, base.tables["items"])
    rng = np.random.default_rng(0)
    published, new = sample(np.flatnonzero(~new_N), _PUBLISHED, rng), sample(np.flatnonzero(new_N), _NEW, rng)
    embeddings = ctx.warehouse.scan("item_embeddings", version=ctx.tables["item_embeddings"])
    for modality in ctx.recipe.encoders.fusion:
        encoder_id = encoders.get(modality)
        if modality in BY_ITEM or encoder_id is None or base.encoders.get(modality) != encoder_id or not len(new):
            continue
        x_PD, has_P = matrix_for(items.take(published), embeddings, modality, encoder_id)
        x_QD, has_Q = matrix_for(items.take(new), embeddings, modality, encoder_id)
        far_Q, share = least_share_far(x_PD[has_P], x_QD[has_Q])
        far_N[new[has_Q][far_Q]] = True
        shares += [] if share is None else [share]
    return far_N, max(shares, default=None)


def _new(ctx: RunContext, items: pa.Table, version: int) -> npt.NDArray[np.bool_]:
    """Return which items, or contents of items, the version of `items` does not have."""
    wanted = pl.from_arrow(items.select(["item_id", "content_hash"]))
    assert isinstance(wanted, pl.DataFrame)
    known = ctx.warehouse.scan("items", version=version).select("item_id", "content_hash", pl.lit(value=True).alias("known"))
    found = wanted.lazy().join(known, on=["item_id", "content_hash"], how="left", maintain_order="left").collect()
    return found["known"].is_null().to_numpy()
