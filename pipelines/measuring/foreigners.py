"""Whether new items are embedded as the published ones were: a swapped encoder shows in vectors that have no neighbours.

An encoder's id covers its weights and settings, but not what runs it, nor a table that somebody wrote to. So each modality is asked
how near the nearest published item lies to a new one, by cosine of the encoder's own vectors, against how near the nearest other
one lies to published items. Where the encoder is the same, new items are draws like the others: 1 % of them lie beyond the distance
that 1 % of the published ones exceed (measured: 0.5 to 4 % on catalogues of 3,800 to 60 items); by another encoder nearly all do.
The distance to codes cannot tell: small catalogues fit their codes so closely that every new item lies far from them.

Not done here: behaviour, which no refresh embeds anew. Memory: 4 * D bytes of `_PUBLISHED` + `_NEW` items, and a block of cosines.

Shapes: N items, P published ones and Q new ones in the sample, D dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from sidlake.pipelines.run import RunContext
from sidlake.quality.metrics.hit_rate import wilson_interval
from sidlake.tokenizers.numeric.threads import product_in_blocks
from sidlake.warehouse.embeddings import BY_ITEM, matrix_for

__all__ = ["far_from", "foreign_items", "least_share_far"]

_PUBLISHED, _QUERIES, _NEW = 20_000, 1_000, 2_000  # items sampled
_FAR_SHARE = 0.01
_LEAST = 50  # published items below which their own distances tell nothing: of ten, one pair of neighbours decides


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
    published, new = _sample(np.flatnonzero(~new_N), _PUBLISHED, rng), _sample(np.flatnonzero(new_N), _NEW, rng)
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


def least_share_far(x_PD: npt.NDArray[np.floating], x_QD: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.bool_], float | None]:
    """Return far_Q as `far_from` does, and the lower end of the 95 % interval of their share.

    None of them is far, and the share is None, where fewer than 50 items are published or none is new.
    """
    if len(x_PD) < _LEAST or not len(x_QD):
        return np.zeros(len(x_QD), bool), None
    far_Q = far_from(x_PD, x_QD)
    return far_Q, wilson_interval(int(far_Q.sum()), len(far_Q))[0]


def far_from(x_PD: npt.NDArray[np.floating], x_QD: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Return which rows of `x_QD` lie farther from all of `x_PD` than 99 % of those lie from the nearest other one, by cosine.

    >>> x = np.eye(3)[[0, 0, 1, 1]]
    >>> far_from(x, np.eye(3)).tolist()
    [False, False, True]
    """
    unit_PD, unit_QD = _unit(x_PD), _unit(x_QD)
    asked = _sample(np.arange(len(unit_PD)), _QUERIES, np.random.default_rng(0))
    own_AP = product_in_blocks(unit_PD[asked], unit_PD.T)
    own_AP[np.arange(len(asked)), asked] = -np.inf
    usual = np.quantile(own_AP.max(axis=1), _FAR_SHARE)
    starts = range(0, len(unit_QD), _QUERIES)
    nearest = [product_in_blocks(unit_QD[start : start + _QUERIES], unit_PD.T).max(axis=1) for start in starts]
    far_Q: npt.NDArray[np.bool_] = np.concatenate(nearest) < usual
    return far_Q


def _new(ctx: RunContext, items: pa.Table, version: int) -> npt.NDArray[np.bool_]:
    """Return which items, or contents of items, the version of `items` does not have."""
    wanted = pl.from_arrow(items.select(["item_id", "content_hash"]))
    assert isinstance(wanted, pl.DataFrame)
    known = ctx.warehouse.scan("items", version=version).select("item_id", "content_hash", pl.lit(value=True).alias("known"))
    found = wanted.lazy().join(known, on=["item_id", "content_hash"], how="left", maintain_order="left").collect()
    return found["known"].is_null().to_numpy()


def _sample(rows_N: npt.NDArray[np.intp], num: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    return rows_N if len(rows_N) <= num else np.sort(rng.choice(rows_N, num, replace=False))


def _unit(x_ND: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    unit_ND: npt.NDArray[np.float32] = (x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-30)).astype(np.float32)
    return unit_ND
