"""The step that ingests: sources to `items`, `interactions` and `rejected_rows`, skipped while file and recipe are the same."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from sidlake.pipelines.context import RunContext, StepReport
from sidlake.pipelines.ingest import Ingested, ingest, keep_unchanged
from sidlake.pipelines.sources import file_digest
from sidlake.tokenizers.errors import SourceError

__all__ = ["ingest_sources"]


def ingest_sources(ctx: RunContext) -> StepReport:
    """Write the three tables from the recipe's sources.

    Raises:
        SourceError: a source is missing or damaged. ContractError: too many rows rejected, or nothing left.
    """
    recipe = ctx.recipe
    digests = {name: _digest(ctx, name) for name in recipe.sources}
    config = [recipe.sources, recipe.items, recipe.interactions, digests]
    outputs = ["items", "rejected_rows", *(["interactions"] if recipe.interactions else [])]
    if ctx.unchanged("ingest", inputs=[], outputs=outputs, config=config):
        return StepReport(step="ingest", skipped=True)
    result = ingest(recipe, run_id=ctx.run_id, now=ctx.now)
    items = _write_items(ctx, result)
    if recipe.interactions:
        ctx.write("interactions", result.interactions)
    ctx.write("rejected_rows", result.rejected_rows)
    ctx.note(inputs={name: {"sha256": digest, "path": recipe.sources[name].path} for name, digest in digests.items()})
    rows = {"items": len(items), "interactions": len(result.interactions), "rejected_rows": len(result.rejected_rows)}
    rules = {f"{entry['values']}": entry["counts"] for entry in pc.value_counts(result.rejected_rows.column("rule")).to_pylist()}
    return StepReport(step="ingest", rows=rows, details={f"rejected_{rule}": count for rule, count in rules.items()})


def _write_items(ctx: RunContext, result: Ingested) -> pa.Table:
    """Write `items` unless they are the base release's; its version is what the later steps go by."""
    if ctx.base is None:
        ctx.write("items", result.items)
        return result.items
    previous = ctx.read("items")
    items = keep_unchanged(result.items, previous)
    if not items.equals(previous.sort_by("item_id")):
        ctx.write("items", items)
    return items


def _digest(ctx: RunContext, source: str) -> str:
    path = ctx.recipe.source_path(source)
    if not path.is_file():
        msg = f"source {source}: no file {path}; the recipe's paths start at the recipe's folder"
        raise SourceError(msg, path=str(path))
    return file_digest(path)
