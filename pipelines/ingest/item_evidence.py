"""What the rows of a growing source say of its items, condensed so that a new file is added without reading the old ones again.

Rows that say the same of an item (title, text, price, ...) become one with the newest time, the number of rows and the first
place they stand at. Every pick of a recipe (latest, median, min, max, first) can be made from these rows exactly, and it is made
from them in a full reading too: what was ingested day by day and what was ingested at once are equal by construction. The shop's
million rows become some tens of thousands. Not done here: reading sources and rules (see `ingest`), and keeping the rows between
runs (see `ingest_cache`).
"""

from __future__ import annotations

import polars as pl

from sidlake.pipelines.ingest.sources import FILE, ROW
from sidlake.pipelines.recipe import ItemsConfig

__all__ = ["BY", "condense", "described_ids", "settle"]

BY = "__by"
"""Column of the time that ``latest`` goes by."""
_NUM = "__num"
_PLACE = [FILE, ROW]


def condense(rows: pl.DataFrame, config: ItemsConfig) -> pl.DataFrame:
    """Return one row per item and thing said of it, in the order of files and rows; `rows` may be condensed ones themselves."""
    keys = ["item_id", "title", "text"]
    keys += [n for n, given in (("category", config.category), ("price", config.price), ("image", config.image)) if given]
    keys += ["image_uri"] if config.image else []
    folded = config.first_seen is not None and config.first_seen.pick in ("min", "max")
    keys += ["first_seen"] if config.first_seen and not folded else []
    kept = [name for name in ("category", "price", "image", "image_uri", "first_seen") if name not in keys]
    first_seen = pl.col("first_seen").max() if folded and config.first_seen.pick == "max" else pl.col("first_seen").min()  # type: ignore[union-attr]
    num = pl.col(_NUM).sum() if _NUM in rows.columns else pl.len().cast(pl.Int64).alias(_NUM)
    values = [first_seen if name == "first_seen" else pl.col(name).first() for name in kept]
    return (
        rows.sort(_PLACE)
        .group_by(keys, maintain_order=True)
        .agg(*(pl.col(p).first() for p in _PLACE), pl.col(BY).max(), num, *values)
    )


def settle(evidence: pl.DataFrame, config: ItemsConfig) -> pl.DataFrame:
    """Return one row per item with the recipe's picks, sorted by item_id; `FILE` and `ROW` say where the item stands first."""
    picks = {
        "title": config.title.pick,
        "text": config.title.pick,
        "price": config.price.pick if config.price else "only",
        "first_seen": config.first_seen.pick if config.first_seen else "only",
    }
    names = ("title", "text", "category", "price", "image", "image_uri", "first_seen")
    chosen = (_pick(name, picks.get(name, "only")).alias(name) for name in names)
    ordered = evidence.sort(_PLACE).group_by("item_id", maintain_order=True)
    return ordered.agg(*(pl.col(p).first() for p in _PLACE), *chosen).sort("item_id")


def described_ids(evidence: pl.DataFrame) -> pl.Series:
    """Return the items that have a text, each once."""
    return evidence.filter((pl.col("text") != "") & pl.col(BY).is_not_null())["item_id"].unique()


def _pick(name: str, pick: str) -> pl.Expr:
    value, by = pl.col(name), pl.col(BY)
    if pick == "latest":
        filled = value.is_not_null() & (value != "")
        return value.filter(filled & (by.filter(filled).max() == by)).max()
    if pick == "only":
        return value.drop_nulls().first()
    if pick == "median":
        return value.repeat_by(_NUM).explode().median()
    return value.min() if pick == "min" else value.max()
