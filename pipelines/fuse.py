"""The steps that make the vector which is quantized: `retrain` fits the fusion of an item's modalities, every run applies it.

Memory: 4 * D bytes per item and modality, because principal components need all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sidlake.encoders.fusion.config import PAIR_KINDS
from sidlake.encoders.fusion.fusion import Fusion
from sidlake.errors import NotFoundError
from sidlake.pipelines.embed.known import add_vectors, wanting
from sidlake.pipelines.fit_inputs.item_facts import training_pairs
from sidlake.pipelines.products import PRODUCTS
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.warehouse.embeddings import BY_ITEM, embedding_rows, matrix_for

__all__ = ["fit_fusion", "fuse", "load_fusion", "modality_vectors"]

_KEYS = ["item_id", "content_hash"]


def fit_fusion(ctx: RunContext) -> StepReport:
    """Fit how each item's modalities become one vector, on the catalogue as it is."""
    config, items = ctx.recipe.encoders, ctx.read("items", _KEYS)
    vectors, present = _modalities(ctx, items)
    found = training_pairs(ctx, items) if config.fuse.kind in PAIR_KINDS else None
    pairs_P2, gaps_P, window = (found.pairs_P2, found.gaps_P, found.window) if found else (None, None, None)
    fusion = Fusion.fit(vectors, present, config.fusion_config(), pairs_P2=pairs_P2, gaps_P=gaps_P, pairs_window=window)
    fusion.save(path := _fusion_path(ctx, fusion.fusion_id))
    ctx.warehouse.keep(path)
    explained = {modality: round(share, 4) for modality, share in fusion.explained(vectors, present).items()}
    of_steps = {product.modality for product in PRODUCTS.values()}
    made = {*of_steps, "text_precision", *config.precomputed}  # tables that the recipe no longer names go
    ctx.state.encoders = {name: one for name, one in ctx.state.encoders.items() if name in made} | {"fused": fusion.fusion_id}
    ctx.state.explained = explained
    details: dict[str, object] = {"encoder": fusion.fusion_id}
    details |= {f"{modality}_explains": share for modality, share in explained.items()}
    details |= {"pairs": len(found.pairs_P2), "pairs_until": found.window[1]} if found else {}
    return StepReport(step="fit_fusion", details=details)


def fuse(ctx: RunContext) -> StepReport:
    """Give each item whose content or vectors are new its fused vector."""
    items, fusion = ctx.read("items", _KEYS), load_fusion(ctx)
    missing = wanting(ctx, items, "fused", fusion.fusion_id)
    details: dict[str, object] = {"encoder": fusion.fusion_id}
    if len(missing):
        vectors, present = _modalities(ctx, missing)
        details |= {f"{modality}_share": float(has_N.mean()) for modality, has_N in present.items()}
        rows = embedding_rows(missing, "fused", fusion.fusion_id, fusion.transform(vectors, present))
        add_vectors(ctx, rows)
    return StepReport(step="fuse", rows={"item_embeddings": len(missing)}, details=details)


def load_fusion(ctx: RunContext) -> Fusion:
    """Return the fusion of the generation in force."""
    fusion_id = ctx.state.encoders.get("fused")
    if fusion_id is None:
        msg = "this warehouse has no fusion yet; run the retrain job first: sidlake run retrain"
        raise NotFoundError(msg)
    return Fusion.load(_fusion_path(ctx, fusion_id))


def _modalities(ctx: RunContext, items: pa.Table) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, npt.NDArray[np.bool_]]]:
    vectors, present = {}, {}
    for modality, x_ND, has_N in modality_vectors(ctx, items):
        vectors[modality], present[modality] = x_ND, has_N
    return vectors, present


def modality_vectors(ctx: RunContext, items: pa.Table) -> Iterator[tuple[str, npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
    """Yield each fused modality with its own vectors (N, D) of `items`, zero where absent, and which are there (N,)."""
    embeddings = ctx.warehouse.scan("item_embeddings", version=ctx.tables["item_embeddings"])
    for modality in ctx.recipe.encoders.fusion:
        by = ["item_id"] if modality in BY_ITEM else _KEYS
        yield modality, *matrix_for(items, embeddings, modality, ctx.encoder(modality), by=by)


def _fusion_path(ctx: RunContext, fusion_id: str) -> Path:
    return ctx.warehouse.fetched(ctx.warehouse.artifacts_dir / "fusion" / f"{fusion_id.replace(':', '-')}.safetensors")
