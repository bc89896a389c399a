"""What the asset of each product shows of its work, beside rows, seconds, contract and preview: pictures, scores, days.

Everything is read from what the run has in force, so a skipped step shows what it kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt
import polars as pl

from sidlake.assets.evidence import MetadataMap, as_metadata, column_schema, preview, report_metadata, table_metadata
from sidlake.assets.plots import code_usage
from sidlake.generative.judging.judge import HEADLINES
from sidlake.pipelines.ingest.step import days_brought
from sidlake.pipelines.products import PRODUCTS, stamp
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.warehouse.releases import get

__all__ = ["result_of"]

_RELEASE_COLUMNS = [
    "release_id", "parent", "generation", "created_at", "status", "content_hash", "reason", "published_by", "override",
]  # fmt: skip
_DAYS_SHOWN = 31


def result_of(name: str, key: dg.AssetKey, ctx: RunContext, report: StepReport, seconds: float) -> dg.MaterializeResult[Any]:
    """Return the materialization of the product `name`.

    Its data version is the product's stamp, so that a skipped step does not make what lies downstream look stale.
    """
    product = PRODUCTS[name]
    metadata = report_metadata(report, seconds, product.table or name)
    if product.table is not None:
        encoder = _encoder(name, ctx) if product.shared else None
        metadata |= table_metadata(ctx, product.table, encoder=encoder)
    metadata |= _MORE[name](ctx, report) if name in _MORE else {}
    return dg.MaterializeResult(asset_key=key, metadata=metadata, data_version=dg.DataVersion(_version(name, ctx, report)))


def _encoder(name: str, ctx: RunContext) -> str | None:
    """Return the encoder in force whose rows the product is; a name that no row has where the recipe leaves it out."""
    if name == "precomputed_embeddings":
        return next(iter(ctx.state.encoders.get(one, "none") for one in ctx.recipe.encoders.precomputed), "none")
    return ctx.state.encoders.get("fused" if name == "fused_embeddings" else str(PRODUCTS[name].modality), "none")


def _version(name: str, ctx: RunContext, report: StepReport) -> str:
    if name in ("release", "quality_report"):
        return get(ctx.warehouse).release_id
    if name == "recommender":
        return str(report.details.get("checkpoint", "kept"))
    if PRODUCTS[name].shared:
        return f"{stamp(name, ctx.state, ctx.recipe)} items@{ctx.tables.get('items')}"
    return f"{name}@{stamp(name, ctx.state, ctx.recipe)}"


def _days(ctx: RunContext, report: StepReport) -> MetadataMap:
    """Return the days of events that the run has brought, with their rows, the newest first."""
    days = days_brought(ctx)
    newest = dict(sorted(days.items(), reverse=True)[:_DAYS_SHOWN])
    return as_metadata({"days_brought": len(days), "rows_by_day": newest})


def _fitted_use(ctx: RunContext, report: StepReport) -> MetadataMap:
    if ctx.state.generation is None:
        return {}
    counts = [counts_K for _, counts_K in _fitted(ctx)]
    return {"code_usage": code_usage(f"raw codes at fit time, generation {ctx.generation}", counts)}


def _published_use(ctx: RunContext, report: StepReport) -> MetadataMap:
    fitted = _fitted(ctx)
    columns = [f"code_{level}" for level, _ in fitted]
    codes = ctx.read("semantic_ids", columns)
    counts = [
        np.bincount(codes.column(name).to_numpy(), minlength=len(counts_K))
        for name, (_, counts_K) in zip(columns, fitted, strict=True)
    ]
    return {"code_usage": code_usage(f"published codes, generation {ctx.generation}", counts)}


def _fitted(ctx: RunContext) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """Return (level, items per code at fit time) for each level of the generation in force."""
    rows = ctx.read("codebooks", ["level", "code", "count"]).sort_by([("level", "ascending"), ("code", "ascending")])
    levels, counts = rows.column("level").to_numpy(), rows.column("count").to_numpy()
    return [(level, counts[levels == level]) for level in range(levels.max() + 1)]


def _measured(ctx: RunContext, report: StepReport) -> MetadataMap:
    rows = [row for row in ctx.read("sid_quality").to_pylist() if row["value"] is not None]
    names = {True: "{metric}", False: "{metric} level {level}"}
    return as_metadata({names[row["level"] is None].format(**row): float(row["value"]) for row in rows})


def _published(ctx: RunContext, report: StepReport) -> MetadataMap:
    current = get(ctx.warehouse)
    rows = ctx.warehouse.scan("releases").select(_RELEASE_COLUMNS).sort("release_id", descending=True)
    return {
        "dagster/row_count": dg.MetadataValue.int(ctx.warehouse.num_rows("releases")),
        "dagster/column_schema": column_schema(ctx.warehouse.schema("releases")),
        "preview": preview(rows.head(10).collect()),
        "catalogue": dg.MetadataValue.path(ctx.warehouse.root / "catalog.duckdb"),
        **as_metadata({"release": current.release_id, "generation": current.generation, "tables": current.tables}),
    }


def _page(ctx: RunContext, report: StepReport) -> MetadataMap:
    path = Path(str(report.details["path"]))
    return {"path": dg.MetadataValue.path(path), "file_bytes": dg.MetadataValue.int(path.stat().st_size)}


def _recommended(ctx: RunContext, report: StepReport) -> MetadataMap:
    """Return what is recommended on the current release, and the models' scores on it, one number each."""
    if not ctx.warehouse.exists("recommendations"):
        return as_metadata({"dagster/row_count": 0, "absent": True})
    of_release = pl.col("release_id") == get(ctx.warehouse).release_id
    rows = ctx.warehouse.scan("recommendations").filter(of_release)
    scores = ctx.warehouse.scan("model_metrics").filter(of_release & pl.col("metric").is_in(HEADLINES)).collect()
    return {
        "dagster/row_count": dg.MetadataValue.int(rows.select(pl.len()).collect().item()),
        "dagster/column_schema": column_schema(ctx.warehouse.schema("recommendations")),
        "preview": preview(rows.sort("user_id", "rank").head(10).collect()),
        **as_metadata({f"{row['model']} {row['metric']} ({row['split']})": row["value"] for row in scores.to_dicts()}),
    }


_MORE: dict[str, Callable[[RunContext, StepReport], MetadataMap]] = {
    "interactions": _days,
    "codebooks": _fitted_use,
    "semantic_ids": _published_use,
    "sid_quality": _measured,
    "release": _published,
    "quality_report": _page,
    "recommender": _recommended,
}
