"""The step that ingests: sources to `items`, `interactions` and `rejected_rows`, skipped while files and recipe are the same.

Where the files of the base release are all there and unchanged, only new files are read, and what they add is appended
(`ingest_new`); where one is gone or has changed, or the recipe reads them differently, all are read. Both ways give the same
rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.errors import ContractError
from sidlake.pipelines.ingest.cache import Remembered, cache_key, digest_of_files, forget_others, recall, remember
from sidlake.pipelines.ingest.item_evidence import conflicting, described_ids
from sidlake.pipelines.ingest.known_files import KnownFiles
from sidlake.pipelines.ingest.picture_files import PictureFiles
from sidlake.pipelines.ingest.reading import Files, Ingested, Known, ingest, ingest_new, keep_unchanged
from sidlake.pipelines.ingest.rejected import keep_rejected
from sidlake.pipelines.ingest.schema import check_columns
from sidlake.pipelines.ingest.sources import SourceFiles
from sidlake.pipelines.ingest.stores.snapshots import listed_sources
from sidlake.pipelines.retirement import quiet_items
from sidlake.pipelines.run import RunContext, StepReport

__all__ = ["days_brought", "ingest_settings", "ingest_sources"]

_DAY = re.compile(r"/day=(\d{4}-\d{2}-\d{2})/")


def ingest_sources(ctx: RunContext) -> StepReport:
    """Write the three tables from the recipe's sources.

    Raises:
        SourceError: a source is missing or damaged. ContractError: too many rows rejected, or nothing left.
    """
    recipe = ctx.recipe
    listed = listed_sources(recipe, ctx.warehouse.staging(ctx.run_id) / "sources", ctx.warehouse.root / "cache" / "objects")
    files = {name: found.files for name, found in listed.items()}
    known = KnownFiles(ctx.warehouse.root / "cache" / "files.json", reread=ctx.reread)
    digests = {source: {name: known.digest(path) for name, path in named.items()} for source, named in files.items()}
    whole = {source: digest_of_files(named) for source, named in digests.items()}
    pictures = PictureFiles(Path(recipe.folder), known)
    repainted = _repainted(ctx, pictures)
    if _whole(ctx.state.inputs) == whole and ctx.made_alike() and _has_outputs(ctx) and not repainted:
        known.remember()
        return StepReport(step="ingest", skipped=True)
    try:
        columns, result = ({}, None) if repainted else _only_new(ctx, files, digests, pictures)
        if result is None:
            columns = check_columns(recipe, files, ctx.base_state.inputs)
            result = ingest(recipe, run_id=ctx.run_id, now=ctx.now, files=files, pictures=pictures)
    except ContractError as error:
        raise keep_rejected(ctx.warehouse, ctx.run_id, error) from error
    items, gone = _write_items(ctx, result)
    _write_events(ctx, result, items, gone=gone)
    _write_rejected(ctx, result)
    seen = pictures.state(items.column("image_uri").to_pylist()) if recipe.items.image else ""
    known.remember()
    ctx.state.inputs = {name: _input(ctx, name, digests[name], whole[name], columns[name], seen) for name in files}
    _remember(ctx, result, digests, whole)
    rows = {"items": len(items), "interactions": len(result.interactions), "rejected_rows": len(result.rejected_rows)}
    rules = {f"{entry['values']}": entry["counts"] for entry in pc.value_counts(result.rejected_rows.column("rule")).to_pylist()}
    details: dict[str, object] = {"described": len(result.items), "only_new_files": result.adds} if result.adds else {}
    details |= {"retired": gone} if gone else {}
    details |= _noticed(ctx, result, listed, digests)
    return StepReport(step="ingest", rows=rows, details=details | {f"rejected_{rule}": count for rule, count in rules.items()})


def ingest_settings(ctx: RunContext) -> list[object]:
    """Return what the three tables depend on: how the recipe reads its sources, and the content that was read."""
    recipe = ctx.recipe
    pictures = {name: entry.get("pictures", "") for name, entry in ctx.state.inputs.items()}
    return [recipe.sources, recipe.items, recipe.interactions, recipe.retirement, _whole(ctx.state.inputs), pictures]


def _has_outputs(ctx: RunContext) -> bool:
    needed = {"items", "rejected_rows", *(["interactions"] if ctx.recipe.interactions else [])}
    return needed <= ctx.tables.keys()


def days_brought(ctx: RunContext) -> dict[str, int]:
    """Return the days of `interactions` that this run has written, with their rows; none where it has the base release's."""
    if "interactions" not in ctx.tables:
        return {}
    before = set()
    if ctx.base is not None and "interactions" in ctx.base.tables:
        before = set(ctx.warehouse.files("interactions", version=ctx.base.tables["interactions"]))
    rows = ctx.warehouse.manifest("interactions", version=ctx.tables["interactions"]).to_pylist()
    day_of = {row["path"]: _DAY.search(row["path"]) for row in rows}
    brought = {found.group(1) for path, found in day_of.items() if found and path not in before}
    counts = dict.fromkeys(sorted(brought), 0)
    for row in rows:
        found = day_of[row["path"]]
        if found and found.group(1) in counts:
            counts[found.group(1)] += row["num_records"]
    return counts


def _noticed(
    ctx: RunContext, result: Ingested, listed: Mapping[str, SourceFiles], digests: dict[str, dict[str, str]]
) -> dict[str, object]:
    """Return what a person should know of a reading: files that are not read or are gone, and items whose rows disagree."""
    said: dict[str, object] = {}
    for source, found in listed.items():
        said |= {f"{source}_left_out": _some(found.left_out)} if found.left_out else {}
    known = _recalled(ctx)
    for source, named in known.digests.items() if known else ():
        gone = sorted(named.keys() - digests[source].keys())
        said |= {f"{source}_gone": _some(gone)} if gone else {}
    disagreeing = conflicting(result.evidence) if ctx.recipe.items.aggregated else 0
    return said | ({"several_titles": disagreeing} if disagreeing else {})


def _some(names: Sequence[str]) -> str:
    """Return how many files there are and the first three names.

    >>> _some(["a.xlsx", "b.xlsx", "c.xlsx", "d.xlsx"])
    '4 files (a.xlsx, b.xlsx, c.xlsx, ...)'
    """
    return f"{len(names)} files ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _repainted(ctx: RunContext, pictures: PictureFiles) -> bool:
    """Return whether a picture file that the base release names holds something else than it did."""
    if ctx.base is None or not ctx.recipe.items.image or "items" not in ctx.base.tables:
        return False
    places = ctx.warehouse.read("items", version=ctx.base.tables["items"], columns=["image_uri"]).column("image_uri")
    before: dict[str, Any] = ctx.base.inputs.get(ctx.recipe.items.source, {})
    return bool(pictures.state(places.to_pylist()) != before.get("pictures", ""))


def _only_new(
    ctx: RunContext, files: Files, digests: dict[str, dict[str, str]], pictures: PictureFiles
) -> tuple[dict[str, dict[str, str]], Ingested | None]:
    """Return the sources' columns and what files that are new since the base release add; None where all files must be read."""
    known = _recalled(ctx)
    if known is None or "rejected_rows" not in ctx.tables:
        return {}, None
    if any(digests[source].get(name) != digest for source, named in known.digests.items() for name, digest in named.items()):
        return {}, None
    new = {source: {n: path for n, path in named.items() if n not in known.digests[source]} for source, named in files.items()}
    rejected = pl.from_arrow(ctx.read("rejected_rows", ["source", "target", "row", "rule", "value"]))
    assert isinstance(rejected, pl.DataFrame)
    events = ctx.warehouse.scan("interactions", version=ctx.tables["interactions"]) if "interactions" in ctx.tables else None
    columns = check_columns(ctx.recipe, new, ctx.base_state.inputs)
    before = Known(evidence=known.evidence, heard=known.heard, rows_read=known.rows_read, rejected=rejected, events=events)
    result = ingest_new(ctx.recipe, new, before, run_id=ctx.run_id, now=ctx.now, pictures=pictures)
    return columns, None if result is not None and _may_return(ctx, result, known) else result


def _recalled(ctx: RunContext) -> Remembered | None:
    inputs = ctx.base.inputs if ctx.base else {}
    if inputs.keys() != ctx.recipe.sources.keys():
        return None
    return recall(ctx.warehouse.root / "cache" / "ingest", cache_key(ctx.recipe, _whole(inputs)))


def _whole(inputs: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in inputs.items()}


def _remember(ctx: RunContext, result: Ingested, digests: dict[str, dict[str, str]], whole: dict[str, str]) -> None:
    folder, key = ctx.warehouse.root / "cache" / "ingest", cache_key(ctx.recipe, whole)
    found = Remembered(digests=digests, rows_read=result.rows_read, evidence=result.evidence, heard=result.heard)
    remember(folder, key, found)
    base = {cache_key(ctx.recipe, _whole(ctx.base.inputs))} if ctx.base else set()
    forget_others(folder, base | {key})


def _input(
    ctx: RunContext, source: str, digests: dict[str, str], whole: str, columns: dict[str, str], pictures: str
) -> dict[str, object]:
    """Return what the release says of a source: its digest, the number of files, and the digest of picture files that it names."""
    entry: dict[str, object] = {"sha256": whole, "path": ctx.recipe.sources[source].path, "columns": columns}
    entry |= {"pictures": pictures} if pictures and source == ctx.recipe.items.source else {}
    return entry if list(digests) == [""] else entry | {"files": len(digests)}


def _may_return(ctx: RunContext, result: Ingested, known: Remembered) -> bool:
    """Return whether new files speak of an item that has left, by a description or an event: what older files say of it is needed.

    What has left is what those files describe and the base release does not have; its events were left out of the base too.
    """
    described = described_ids(known.evidence).to_arrow().cast(pa.string())
    away = described.filter(pc.invert(pc.is_in(described, value_set=ctx.read("items", ["item_id"]).column("item_id"))))
    spoken_of = (result.items.column("item_id"), result.interactions.column("item_id"))
    return any(pc.any(pc.is_in(item_ids, value_set=away)).as_py() for item_ids in spoken_of)


def _write_items(ctx: RunContext, result: Ingested) -> tuple[pa.Table, int]:
    """Write `items` unless they are the base release's, without those that retire; return them and how many the base loses.

    Their version is what the later steps go by.
    """
    previous = ctx.read("items") if ctx.base else result.items.slice(0, 0)
    items = keep_unchanged(result.items, previous) if ctx.base else result.items
    quiet = pa.array(quiet_items(ctx.recipe, result.evidence, result.heard).to_list(), pa.string())
    items = items.filter(pc.invert(pc.is_in(items.column("item_id"), value_set=quiet)))
    if ctx.recipe.retirement.missing and not result.adds:
        items = items.filter(pc.is_in(items.column("item_id"), value_set=result.items.column("item_id")))
    if ctx.base is None or not items.equals(previous.sort_by("item_id")):
        ctx.write("items", items)
    stay = pc.is_in(previous.column("item_id"), value_set=items.column("item_id"))
    return items, len(previous) - (pc.sum(stay).as_py() or 0)


def _write_events(ctx: RunContext, result: Ingested, items: pa.Table, *, gone: int) -> None:
    """Write the events of the items that stay: all where files were read again or an item has left, else the new ones."""
    if ctx.recipe.interactions is None:
        return
    staying = pc.is_in(result.interactions.column("item_id"), value_set=items.column("item_id"))
    new = result.interactions.filter(staying)
    if not result.adds:
        ctx.write("interactions", new)
    elif gone:
        before = ctx.read("interactions")
        kept = before.filter(pc.is_in(before.column("item_id"), value_set=items.column("item_id")))
        ctx.write("interactions", pa.concat_tables([kept, new]))
    elif len(new):
        ctx.append("interactions", new)


def _write_rejected(ctx: RunContext, result: Ingested) -> None:
    """Write the rejections: all, or those of new files beside the standing ones, without such as an item's that has a text now."""
    if not result.adds:
        ctx.write("rejected_rows", result.rejected_rows)
        return
    if len(result.settled):
        before = pl.from_arrow(ctx.read("rejected_rows"))
        assert isinstance(before, pl.DataFrame)
        of_items = (pl.col("target") == "items") & (pl.col("rule") == "empty_text")
        gone = before.filter(of_items).join(result.settled, on=["source", "row"], how="semi")
        if len(gone):
            standing = before.join(gone, on=["source", "row", "target"], how="anti").to_arrow().cast(result.rejected_rows.schema)
            ctx.write("rejected_rows", pa.concat_tables([standing, result.rejected_rows]))
            return
    if len(result.rejected_rows):
        ctx.append("rejected_rows", result.rejected_rows)
