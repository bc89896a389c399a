"""Asset checks: each law and each gate, judged by what lies in storage. A law that breaks, or a gate that refuses, stops the run.

The laws are `warehouse.laws.verify`'s; it is called once per asset and every broken rule is put down to the check that names it. A
law that held of the same files is not asked again, neither by the next check nor by the release step (`warehouse.hashing`). A
check materialises nothing and may be run alone: it then judges the current release. They stop a run early and tell where it went
wrong; what guards publication is the release step.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg
import polars as pl

from sidlake.assets.failures import IO_RETRIES, failing_fast
from sidlake.assets.resources import SidlakeResource
from sidlake.assets.settings import Settings
from sidlake.errors import LawBroken
from sidlake.pipelines.run import RunContext
from sidlake.quality.gates import remedy_for
from sidlake.warehouse.hashing.verified_files import Verified
from sidlake.warehouse.laws import REQUIRED, verify
from sidlake.warehouse.releases import history

__all__ = ["SID_LAWS", "checks_for"]

Found = dict[str, dict[str, Any]]
"""What a reading found, by check: arguments of `dagster.AssetCheckResult`."""

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


def _unique_ids(ctx: RunContext) -> Found:
    ids = ctx.warehouse.scan("items", version=_version(ctx, "items")).select("item_id")
    wrong = pl.col("item_id").is_duplicated() | (pl.col("item_id") == "") | pl.col("item_id").is_null()
    bad = ids.filter(wrong).unique().sort("item_id").collect()["item_id"].to_list()
    return {"unique_ids": {"passed": not bad, "metadata": {"wrong": len(bad), "examples": str(bad[:5])}}}


def _semantic_id_laws(ctx: RunContext) -> Found:
    """Judge the laws of semantic IDs by one reading of what was written."""
    broken = _broken(ctx, [])
    known = [start for starts in SID_LAWS.values() for start in starts]
    # A rule that no check names would otherwise be lost: it fails them all.
    return {
        name: _judged([one for one in broken if _begins(one, starts) or not _begins(one, known)])
        for name, starts in SID_LAWS.items()
    }


def _known_items(ctx: RunContext) -> Found:
    if "interactions" not in ctx.tables:
        return {"known_items": {"passed": True, "metadata": {"absent": True}}}
    items = ctx.warehouse.scan("items", version=_version(ctx, "items"))
    events = ctx.warehouse.scan("interactions", version=ctx.tables["interactions"]).select("item_id")
    bad = events.join(items, on="item_id", how="anti").unique().sort("item_id").collect()["item_id"].to_list()
    return {"known_items": {"passed": not bad, "metadata": {"unknown": len(bad), "examples": str(bad[:5])}}}


def _sequences_carry_codes(ctx: RunContext) -> Found:
    broken = _broken(ctx, ["user_sequences"])
    return {"sequences_carry_codes": _judged([one for one in broken if "sequence" in one["rule"]])}


def _leaves_are_sids(ctx: RunContext) -> Found:
    broken = _broken(ctx, ["sid_trie"])
    return {"leaves_are_sids": _judged([one for one in broken if "trie" in one["rule"]])}


def _gates(ctx: RunContext) -> Found:
    """Judge by the stored verdicts: one that refuses is an error, one that warns or is overridden a warning."""
    rows = ctx.read("sid_quality").to_pylist()
    refused = [row for row in rows if row["verdict"] == "refuse"]
    warned = [row for row in rows if row["verdict"] == "warn"]
    overridden = [f"overridden: {ctx.override}"] if refused and ctx.override else []
    blocks = not rows or (refused and not overridden)
    found = {
        "passed": bool(rows) and not refused and not warned,
        "severity": dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN,
        "description": "; ".join([*overridden, *map(_gate_line, refused + warned)]) or ("" if rows else "no metric was stored"),
        "metadata": {"refused": len(refused), "warned": len(warned), "passed": sum(row["verdict"] == "pass" for row in rows)},
    }
    return {"gates": found}


_CHECKS: dict[str, tuple[dict[str, str], Callable[[RunContext], Found]]] = {
    "items": ({"unique_ids": "Every item_id is there once and not empty."}, _unique_ids),
    "interactions": (
        {"known_items": "Every interaction names an item of the catalogue; passes without any."},
        _known_items,
    ),
    "semantic_ids": (_ABOUT, _semantic_id_laws),
    "user_sequences": (
        {"sequences_carry_codes": "Sequences spell the codes of their items, and their targets are items of the catalogue."},
        _sequences_carry_codes,
    ),
    "sid_trie": (
        {"leaves_are_sids": "Leaves of the trie spell exactly the SIDs, each at the item that has it."},
        _leaves_are_sids,
    ),
    "sid_quality": (
        {"gates": "Gates of the recipe: one that refuses stops the run, one that warns or is overridden shows as a warning."},
        _gates,
    ),
}
"""Per product: its checks with what each asks, and the one reading that judges them all."""


def checks_for(settings: Settings) -> list[dg.AssetChecksDefinition]:
    """Return the checks of a catalogue."""
    return [_check(product, settings) for product in _CHECKS]


def _check(product: str, settings: Settings) -> dg.AssetChecksDefinition:
    about, judge = _CHECKS[product]
    key = settings.key(product)
    decorate = dg.multi_asset_check(
        name=settings.named(f"{product}_checks"),
        specs=[dg.AssetCheckSpec(name, asset=key, blocking=True, description=asks) for name, asks in about.items()],
        required_resource_keys={settings.resource},
        retry_policy=IO_RETRIES,
    )

    def compute(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        sidlake: SidlakeResource = getattr(context.resources, settings.resource)
        with failing_fast():
            found = judge(sidlake.open_run(context))
        for name, result in found.items():
            yield dg.AssetCheckResult(asset_key=key, check_name=name, **result)

    return decorate(compute)


def _version(ctx: RunContext, table: str) -> int:
    ctx.read(table, [])  # names the step to run where the table has no version
    return ctx.tables[table]


def _broken(ctx: RunContext, tables: Sequence[str]) -> list[dict[str, Any]]:
    """Return the broken laws of the SIDs and of `tables` (where the run has them): rule, count, examples."""
    present = {name: ctx.tables[name] for name in (*REQUIRED, "retired_sids", *tables) if name in ctx.tables}
    previous = next((release for release in reversed(history(ctx.warehouse)) if release.generation == ctx.generation), None)
    verified = Verified(ctx.warehouse, trusting=True)
    try:
        verify(ctx.warehouse, present, generation=ctx.generation, previous=previous, verified=verified)
    except LawBroken as error:
        details: dict[str, Any] = error.details
        return list(details.get("broken") or [details])
    verified.save_laws()
    return []


def _begins(broken: dict[str, Any], starts: Sequence[str]) -> bool:
    return str(broken["rule"]).startswith(tuple(starts))


def _judged(broken: list[dict[str, Any]]) -> dict[str, Any]:
    lines = [f"{one['rule']}: {one.get('count', 'all')} times not, such as {one.get('examples')}" for one in broken]
    return {"passed": not broken, "description": "; ".join(lines), "metadata": {"broken_laws": len(broken)}}


def _gate_line(row: dict[str, Any]) -> str:
    level = "" if row["level"] is None else f" of level {row['level']}"
    reason = f" ({row['reason']})" if row["reason"] else ""
    examples = f"; such as {'; '.join(row['examples'])}" if row["examples"] else ""
    line = f"{row['metric']}{level} is {row['value']}, the limit is {row['threshold']}{reason}{examples}"
    return f"{line}; try: {remedy_for(row['metric'])}"
