"""Asset checks: each law and each gate, judged by what lies in storage. A law that breaks, or a gate that refuses, stops the run.

The laws are `warehouse.laws.verify`'s; it is called once per asset and every broken rule is put down to the check that names it. A
check materialises nothing and may be run alone: it then judges the current release. They stop a run early and tell where it went
wrong; what guards publication is the release step, which verifies everything again.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import polars as pl

from sidlake.assets.failures import IO_RETRIES, failing_fast
from sidlake.assets.resources import SidlakeResource
from sidlake.errors import LawBroken
from sidlake.pipelines.run import RunContext
from sidlake.quality.gates import remedy_for
from sidlake.warehouse.laws import REQUIRED, verify
from sidlake.warehouse.releases import history

__all__ = ["CHECKS", "SID_LAWS"]

SID_LAWS: dict[str, tuple[str, ...]] = {
    "complete": ("every item has one SID", "every item has a SID", "every item_id is there once and not empty"),
    "unique": ("every SID belongs to one item", "every SID belongs to an item of the catalogue"),
    "codes": (
        "codebooks are numbered from 0 without gaps",
        "every SID has a code per level",
        "every code is in its codebook",
        "every raw code is in its codebook",
        "the code columns agree with codes",
        "sid spells the codes",
        "sid_key is the codes in mixed radix",
    ),
    "still": (
        "no SID published in",
        "every SID published in",
        "no SID is another item's",
        "no item has another SID",
        "the ledger names",
        "no retired item is in",
    ),
}
"""The checks of `semantic_ids`, with how the rules of `warehouse.laws` that they stand for begin."""

_ABOUT = {
    "complete": "Every item of the catalogue has one SID.",
    "unique": "Every SID belongs to one item.",
    "codes": "SIDs have the generation's length, their codes are in its codebooks, and they are spelled right.",
    "still": "No SID that was ever published moved within its generation, or became another item's.",
}


@dg.asset_check(asset="items", blocking=True, retry_policy=IO_RETRIES)
def unique_ids(context: dg.AssetCheckExecutionContext, sidlake: SidlakeResource) -> dg.AssetCheckResult:
    """Every item_id is there once and not empty."""
    with failing_fast():
        ctx = sidlake.open_run(context)
        ids = ctx.warehouse.scan("items", version=_version(ctx, "items")).select("item_id")
        wrong = pl.col("item_id").is_duplicated() | (pl.col("item_id") == "") | pl.col("item_id").is_null()
        bad = ids.filter(wrong).unique().sort("item_id").collect()["item_id"].to_list()
    return dg.AssetCheckResult(passed=not bad, metadata={"wrong": len(bad), "examples": str(bad[:5])})


@dg.multi_asset_check(
    name="semantic_id_laws",
    specs=[dg.AssetCheckSpec(name, asset="semantic_ids", blocking=True, description=_ABOUT[name]) for name in SID_LAWS],
    retry_policy=IO_RETRIES,
)
def semantic_id_laws(context: dg.AssetCheckExecutionContext, sidlake: SidlakeResource) -> Iterator[dg.AssetCheckResult]:
    """Judge the laws of semantic IDs by one reading of what was written."""
    with failing_fast():
        broken = _broken(sidlake.open_run(context), [])
    known = [start for starts in SID_LAWS.values() for start in starts]
    for name, starts in SID_LAWS.items():
        # A rule that no check names would otherwise be lost: it fails them all.
        mine = [one for one in broken if _begins(one, starts) or not _begins(one, known)]
        yield _judged(mine, asset="semantic_ids", name=name)


@dg.asset_check(asset="interactions", blocking=True, retry_policy=IO_RETRIES)
def known_items(context: dg.AssetCheckExecutionContext, sidlake: SidlakeResource) -> dg.AssetCheckResult:
    """Every interaction names an item of the catalogue; passes for a catalogue without interactions."""
    with failing_fast():
        ctx = sidlake.open_run(context)
        if "interactions" not in ctx.tables:
            return dg.AssetCheckResult(passed=True, metadata={"absent": True})
        items = ctx.warehouse.scan("items", version=_version(ctx, "items"))
        events = ctx.warehouse.scan("interactions", version=ctx.tables["interactions"]).select("item_id")
        bad = events.join(items, on="item_id", how="anti").unique().sort("item_id").collect()["item_id"].to_list()
    return dg.AssetCheckResult(passed=not bad, metadata={"unknown": len(bad), "examples": str(bad[:5])})


@dg.asset_check(asset="user_sequences", blocking=True, retry_policy=IO_RETRIES)
def sequences_carry_codes(context: dg.AssetCheckExecutionContext, sidlake: SidlakeResource) -> dg.AssetCheckResult:
    """Sequences spell the codes of their items, and their targets are items of the catalogue."""
    with failing_fast():
        broken = _broken(sidlake.open_run(context), ["user_sequences"])
    return _judged([one for one in broken if "sequence" in one["rule"]])


@dg.asset_check(asset="sid_trie", blocking=True, retry_policy=IO_RETRIES)
def leaves_are_sids(context: dg.AssetCheckExecutionContext, sidlake: SidlakeResource) -> dg.AssetCheckResult:
    """Leaves of the trie spell exactly the SIDs, each at the item that has it."""
    with failing_fast():
        broken = _broken(sidlake.open_run(context), ["sid_trie"])
    return _judged([one for one in broken if "trie" in one["rule"]])


@dg.asset_check(asset="sid_quality", blocking=True, retry_policy=IO_RETRIES)
def gates(context: dg.AssetCheckExecutionContext, sidlake: SidlakeResource) -> dg.AssetCheckResult:
    """Gates of the recipe: one that refuses stops the run, one that warns or is overridden shows as a warning."""
    with failing_fast():
        ctx = sidlake.open_run(context)
        rows = ctx.read("sid_quality").to_pylist()
    refused = [row for row in rows if row["verdict"] == "refuse"]
    warned = [row for row in rows if row["verdict"] == "warn"]
    overridden = [f"overridden: {ctx.override}"] if refused and ctx.override else []
    blocks = not rows or (refused and not overridden)
    severity = dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        passed=bool(rows) and not refused and not warned,
        severity=severity,
        description="; ".join([*overridden, *map(_gate_line, refused + warned)]) or ("" if rows else "no metric was stored"),
        metadata={"refused": len(refused), "warned": len(warned), "passed": sum(row["verdict"] == "pass" for row in rows)},
    )


def _version(ctx: RunContext, table: str) -> int:
    ctx.read(table, [])  # names the step to run where the table has no version
    return ctx.tables[table]


def _broken(ctx: RunContext, tables: Sequence[str]) -> list[dict[str, Any]]:
    """Return the broken laws of the SIDs and of `tables` (where the run has them): rule, count, examples."""
    present = {name: ctx.tables[name] for name in (*REQUIRED, "retired_sids", *tables) if name in ctx.tables}
    previous = next((release for release in reversed(history(ctx.warehouse)) if release.generation == ctx.generation), None)
    try:
        verify(ctx.warehouse, present, generation=ctx.generation, previous=previous)
    except LawBroken as error:
        details: dict[str, Any] = error.details
        return list(details.get("broken") or [details])
    return []


def _begins(broken: dict[str, Any], starts: Sequence[str]) -> bool:
    return str(broken["rule"]).startswith(tuple(starts))


def _judged(broken: list[dict[str, Any]], *, asset: str | None = None, name: str | None = None) -> dg.AssetCheckResult:
    lines = [f"{one['rule']}: {one.get('count', 'all')} times not, such as {one.get('examples')}" for one in broken]
    return dg.AssetCheckResult(
        passed=not broken, asset_key=asset, check_name=name, description="; ".join(lines), metadata={"broken_laws": len(broken)}
    )


def _gate_line(row: dict[str, Any]) -> str:
    level = "" if row["level"] is None else f" of level {row['level']}"
    reason = f" ({row['reason']})" if row["reason"] else ""
    examples = f"; such as {'; '.join(row['examples'])}" if row["examples"] else ""
    line = f"{row['metric']}{level} is {row['value']}, the limit is {row['threshold']}{reason}{examples}"
    return f"{line}; try: {remedy_for(row['metric'])}"


CHECKS = [unique_ids, known_items, semantic_id_laws, sequences_carry_codes, leaves_are_sids, gates]
