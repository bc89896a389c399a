"""What a person asks of a warehouse: its state, one item's card, the items nearest to one, what a user is recommended.

Everything is read from the current release. Plain dicts and lists, so that the command line prints them as tables or as JSON.
Memory: the columns named, of one release; `nearest_items` reads all fused vectors, 4 * D bytes per item.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from sidlake.errors import NotFoundError
from sidlake.generative.judging.judge import HEADLINES
from sidlake.quality.gates import worst
from sidlake.tokenizers.semantic_id import format_sids, parse_sid
from sidlake.warehouse.embeddings import as_matrix
from sidlake.warehouse.holds import hold_by
from sidlake.warehouse.releases import Release, get, readable
from sidlake.warehouse.tables import Warehouse

__all__ = ["findings_of", "former_rows", "item_card", "nearest_items", "recommended", "status_of"]

_EXAMPLES = 3


def status_of(warehouse: Warehouse) -> dict[str, Any]:
    """Return the current release with the hold on runs, its tables, rejected rows by rule, verdicts and the models' metrics."""
    release = get(warehouse)
    tables = [{"table": t, "rows": warehouse.num_rows(t, v), "version": v} for t, v in sorted(release.tables.items())]
    rejected = (
        _frame(warehouse, release, "rejected_rows", ["target", "rule"]).group_by("target", "rule").agg(pl.len().alias("rows"))
    )
    quality = _frame(warehouse, release, "sid_quality", ["metric", "level", "value", "threshold", "verdict"])
    models = pl.DataFrame()
    if warehouse.exists("model_metrics"):
        of_release = warehouse.scan("model_metrics").filter(pl.col("release_id") == release.release_id).drop("release_id")
        models = of_release.filter(pl.col("metric").is_in(HEADLINES) & pl.col("split").is_in(["valid", "test"])).collect()
    return {
        "release": release.release_id,
        "generation": release.generation,
        "created_at": release.created_at.isoformat(timespec="seconds"),
        "content_hash": release.content_hash,
        "published_by": release.published_by,
        "override": release.override,
        "hold": hold.spelled() if (hold := hold_by(warehouse, release)) else None,
        "verdict": worst(quality["verdict"]),
        "tables": tables,
        "rejected": rejected.sort("target", "rows", "rule", descending=[False, True, False]).to_dicts(),
        "quality": quality.to_dicts(),
        "models": models.to_dicts(),
    }


def findings_of(warehouse: Warehouse, release: Release) -> list[dict[str, Any]]:
    """Return metric, level, value, threshold, verdict and reason of what refuses or warns in `release`, refusals first."""
    stored = warehouse.schema("sid_quality", version=release.tables["sid_quality"]).names
    columns = [name for name in ("metric", "level", "value", "threshold", "verdict", "reason") if name in stored]
    rows = _frame(warehouse, release, "sid_quality", columns).filter(pl.col("verdict").is_in(["warn", "refuse"])).to_dicts()
    return [{"reason": None} | row for row in sorted(rows, key=lambda row: row["verdict"] != "refuse")]


def former_rows(warehouse: Warehouse, release: Release) -> dict[str, Any]:
    """Return the release before `release` and its rows by table; empty where there is none to be read."""
    before = next((one for one in readable(warehouse) if one.release_id == release.parent), None)
    if before is None:
        return {}
    return {"release": before.release_id, "rows": {table: warehouse.num_rows(table, at) for table, at in before.tables.items()}}


def item_card(warehouse: Warehouse, item: str) -> dict[str, Any]:
    """Return an item, found by item_id or SID, and for each prefix of its SID who shares it; `NotFoundError` if there is none."""
    release = get(warehouse)
    sids = _frame(warehouse, release, "semantic_ids", ["item_id", "codes", "sid", "raw_codes", "moved", "move_cost"])
    titles = _frame(warehouse, release, "items", ["item_id", "title", "price", "category"])
    found = sids.join(titles, on="item_id").filter((pl.col("item_id") == item) | (pl.col("sid") == _spelled(item)))
    if found.is_empty():
        msg = f'no item or SID {item!r} in release {release.release_id}; list some with: sidlake query "from items limit 5"'
        raise NotFoundError(msg, item=item)
    card = found.row(0, named=True)
    card["raw_sid"] = format_sids(np.array([card.pop("raw_codes")]))[0]
    card["prefixes"] = _prefixes(sids.join(titles.select("item_id", "title"), on="item_id"), card)
    return card


def nearest_items(warehouse: Warehouse, item_id: str, *, k: int) -> list[dict[str, Any]]:
    """Return the k items with the greatest cosine to the item's fused vector, and how many leading codes they share with it."""
    release = get(warehouse)
    rows = warehouse.scan("item_embeddings", version=release.tables["item_embeddings"])
    rows = rows.filter(pl.col("encoder_id") == release.encoders["fused"]).select("item_id", "content_hash", "vector")
    items = warehouse.scan("items", version=release.tables["items"]).select("item_id", "content_hash", "title")
    sids = warehouse.scan("semantic_ids", version=release.tables["semantic_ids"]).select("item_id", "sid", "codes")
    frame = items.join(rows, on=["item_id", "content_hash"]).join(sids, on="item_id").sort("item_id").collect()
    ids = frame["item_id"].to_list()
    if item_id not in ids:
        msg = f"no item {item_id!r} in release {release.release_id}"
        raise NotFoundError(msg, item_id=item_id)
    x_ND = as_matrix(frame["vector"].to_arrow())
    unit_ND = x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-30)
    me = ids.index(item_id)
    cosines = unit_ND @ unit_ND[me]
    order = [row for row in np.argsort(-cosines, kind="stable") if row != me][:k]
    codes = frame["codes"].to_list()
    return [
        frame.select("item_id", "title", "sid").row(row, named=True)
        | {"cosine": float(cosines[row]), "shared_prefix": _shared(codes[me], codes[row])}
        for row in order
    ]


def recommended(warehouse: Warehouse, *, num_users: int) -> list[dict[str, Any]]:
    """Return, for the first users with recommendations, what they bought last and the three items recommended, by title."""
    release = get(warehouse)
    if not warehouse.exists("recommendations"):
        return []
    titles = dict(_frame(warehouse, release, "items", ["item_id", "title"]).iter_rows())
    rows = warehouse.scan("recommendations").filter((pl.col("release_id") == release.release_id) & (pl.col("rank") <= _EXAMPLES))
    best = rows.sort("user_id", "rank").collect().group_by("user_id", maintain_order=True).agg("item_id").head(num_users)
    sequences = warehouse.scan("user_sequences", version=release.tables["user_sequences"])
    tests = sequences.filter((pl.col("split") == "test") & pl.col("user_id").is_in(best["user_id"].to_list())).collect()
    histories = {row["user_id"]: row for row in tests.to_dicts()}
    return [
        {
            "user_id": user,
            "bought": [titles[item] for item in histories[user]["item_ids"][-_EXAMPLES:]],
            "recommended": [titles[item] for item in items],
            "then_bought": titles[histories[user]["target"]],
        }
        for user, items in best.iter_rows()
        if user in histories
    ]


def _frame(warehouse: Warehouse, release: Release, table: str, columns: list[str]) -> pl.DataFrame:
    return warehouse.scan(table, version=release.tables[table]).select(columns).collect()


def _spelled(item: str) -> str:
    """Return the SID in its one spelling, or an impossible one where `item` is none."""
    try:
        return format_sids(np.array([parse_sid(item)]))[0]
    except ValueError:
        return ""


def _prefixes(sids: pl.DataFrame, card: dict[str, Any]) -> list[dict[str, Any]]:
    others, prefixes = sids.filter(pl.col("item_id") != card["item_id"]), []
    tokens = [token + ">" for token in card["sid"].split(">")[:-1]]
    for depth in range(1, len(tokens)):
        others = others.filter(pl.col("codes").list.get(depth - 1) == card["codes"][depth - 1])
        examples = others.sort("item_id")["title"].head(_EXAMPLES).to_list()
        prefixes.append({"prefix": "".join(tokens[:depth]), "items": len(others), "examples": examples})
    return prefixes


def _shared(codes: list[int], others: list[int]) -> int:
    return next((depth for depth, (a, b) in enumerate(zip(codes, others, strict=True)) if a != b), len(codes))
