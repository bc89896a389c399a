"""What the rows of a growing source say of its items, condensed so that a new file is added without reading the old ones again.

Rows that say the same of an item (title, text, price, ...) become one with the newest and the oldest time, the number of rows and
the first place they stand at. Every pick of a recipe (latest, first, most_common, median, min, max, only) can be made from these
rows exactly, and it is made from them in a full reading too: what was ingested day by day and what was ingested at once are equal
by construction. The shop's million rows become some tens of thousands. Not done here: reading sources and rules (see `items`),
and keeping the rows between runs (see `cache`).
"""

from __future__ import annotations

import polars as pl

from sidlake.pipelines.ingest.rules import FILE, ROW
from sidlake.pipelines.recipe import ItemsConfig
from sidlake.pipelines.settings.sources import Pick

__all__ = ["BY", "condense", "conflicting", "described_ids", "settle"]

BY = "__by"
"""Column of the newest time (or number) that ``latest`` goes by."""
_SINCE = "__since"
_NUM = "__num"
_PLACE = [FILE, ROW]
_FIELDS = ("title", "text", "category", "price", "image", "image_uri", "first_seen")


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
    since = pl.col(_SINCE if _SINCE in rows.columns else BY).min().alias(_SINCE)
    values = [first_seen if name == "first_seen" else pl.col(name).first() for name in kept]
    return (
        rows.sort(_PLACE)
        .group_by(keys, maintain_order=True)
        .agg(*(pl.col(p).first() for p in _PLACE), pl.col(BY).max(), since, num, *values)
    )


def settle(evidence: pl.DataFrame, config: ItemsConfig) -> pl.DataFrame:
    """Return one row per item with the recipe's picks, sorted by item_id; `FILE` and `ROW` say where the item stands first."""
    described = {
        "title": config.title, "text": config.title, "category": config.category, "price": config.price,
        "image": config.image, "image_uri": config.image, "first_seen": config.first_seen,
    }  # fmt: skip
    ordered = evidence.sort(_PLACE)
    found = ordered.group_by("item_id", maintain_order=True).agg(*(pl.col(p).first() for p in _PLACE)).sort("item_id")
    for name in _FIELDS:
        column = described[name]
        found = found.join(
            _picked(ordered, name, column.pick if column else "only"), on="item_id", how="left", maintain_order="left"
        )
    return found


def described_ids(evidence: pl.DataFrame) -> pl.Series:
    """Return the items that have a text, each once."""
    return evidence.filter((pl.col("text") != "") & pl.col(BY).is_not_null())["item_id"].unique()


def conflicting(evidence: pl.DataFrame) -> int:
    """Return how many items their rows give different titles."""
    return int(evidence.group_by("item_id").agg(pl.col("title").drop_nulls().n_unique() > 1)["title"].sum())


def _picked(evidence: pl.DataFrame, name: str, pick: Pick) -> pl.DataFrame:
    """Return item_id and what is picked of the values `name`; items without one are left out."""
    filled = pl.col(name).is_not_null() & (pl.col(name) != "") if evidence.schema[name] == pl.String else pl.col(name).is_not_null()
    rows = evidence.filter(filled)
    by_item = rows.group_by("item_id", maintain_order=True)
    value = pl.col(name)
    if pick == "only":
        return by_item.agg(value.first())
    if pick in ("median", "min", "max"):
        several = value.repeat_by(_NUM).explode().median() if pick == "median" else value.min() if pick == "min" else value.max()
        return by_item.agg(several)
    if pick == "most_common":
        counted = rows.group_by("item_id", name).agg(pl.col(_NUM).sum().alias("__rank"))
    else:
        newest = pick == "latest"
        time = pl.col(BY if newest else _SINCE)
        rank = time.cast(pl.Float64) if not rows.schema[BY].is_temporal() else time.dt.epoch("us")
        counted = rows.select("item_id", name, (rank if newest else -rank).alias("__rank")).filter(pl.col("__rank").is_not_null())
    return _greatest(counted, name)


def _greatest(ranked: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return the value of the greatest ``__rank`` of each item, of equal ranks the greatest value."""
    key = pl.col(name).list.join("\x1f") if isinstance(ranked.schema[name], pl.List) else pl.col(name)
    ordered = ranked.with_columns(key.alias("__key")).sort("item_id", "__rank", "__key", descending=[False, True, True])
    return ordered.group_by("item_id", maintain_order=True).agg(pl.col(name).first())
