"""A warehouse's SIDs as a Feast repository: what each item's SID was from when on, for joins by time and an online store.

Feast joins features as they were at a moment. An item's row holds from the moment its release was published; a row is written where
the SID differs from the one before, so the files grow with what changed. There is a view of what was current, across generations,
and one view per generation, whose name is the version: a model that was trained on generation g0001 asks ``item_sids_g0001`` and
never meets codes of another codebook. An item that leaves keeps its last row, since Feast knows no end of a value.

Only releases that were not vacuumed are told. Feast itself is not needed to write.
Memory: 100 bytes per item and release that differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from sidlake.errors import NotFoundError
from sidlake.warehouse.keep.leases import reading
from sidlake.warehouse.releases import Release, readable
from sidlake.warehouse.tables import Warehouse
from sidlake.whole_files import replacing

__all__ = ["write_feast_repo"]

_ROW = pl.Schema({"item_id": pl.String(), "sid": pl.String(), "codes": pl.List(pl.Int64()), "generation": pl.String()})
_STORE = """# Where Feast keeps what it knows. Yours to edit: it is written once.
project: sidlake
provider: local
registry: data/registry.db
offline_store: {type: file}
online_store: {type: sqlite, path: data/online_store.db}
entity_key_serialization_version: 3
"""
_FEATURES = '''"""Semantic IDs as Feast features. `sidlake export feast` writes this file and data/*.parquet anew."""

from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Int64, String

item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
FIELDS = {{"sid": String, "codes": Array(Int64), "prefixes": Array(String), "generation": String, "release_id": String}}
TAGS = {tags}


def view(name):
    return FeatureView(
        name=name,
        entities=[item],
        ttl=timedelta(0),
        schema=[Field(name=field, dtype=kind) for field, kind in FIELDS.items()],
        source=FileSource(name=f"{{name}}_file", path=f"data/{{name}}.parquet", timestamp_field="event_timestamp"),
        tags=TAGS,
    )


# What was current at a time, and each generation by itself.
{views}
'''


def write_feast_repo(warehouse: Warehouse, folder: Path) -> tuple[str, list[Path]]:
    """Write the Feast repository `folder`, or bring it up to date; return the latest release's id and the files.

    Each file is replaced as a whole, the data before the definitions; ``feature_store.yaml`` is left as it is where it is there.
    Raises `NotFoundError` before the first release.
    """
    releases = readable(warehouse)
    if not releases:
        msg = f"nothing has been published in {warehouse.url}; run the pipeline first"
        raise NotFoundError(msg, path=warehouse.url)
    spans = {"item_sids": releases}
    spans |= {f"item_sids_{one}": [r for r in releases if r.generation == one] for one in sorted({r.generation for r in releases})}
    files = [_written(_over_time(warehouse, span), folder / "data" / f"{name}.parquet") for name, span in spans.items()]
    views = "\n".join(f"{name} = view({name!r})" for name in spans)
    tags = {"release": releases[-1].release_id, "content_hash": releases[-1].content_hash}
    definitions, store = folder / "features.py", folder / "feature_store.yaml"
    with replacing(definitions) as beside:
        beside.write_text(_FEATURES.format(views=views, tags=tags), encoding="utf-8")
    if not store.exists():
        store.write_text(_STORE, encoding="utf-8")
    return releases[-1].release_id, [*files, definitions, store]


def _over_time(warehouse: Warehouse, releases: Sequence[Release]) -> pl.DataFrame:
    """Return an item's row for each release, oldest first, in which its SID or generation is another than before."""
    last, found, read = pl.DataFrame(schema=_ROW), [], None
    for release in releases:
        if read == (release.generation, release.tables["semantic_ids"]):
            continue
        read = (release.generation, release.tables["semantic_ids"])
        rows = _sids(warehouse, release)
        new = rows.join(last, on=["item_id", "sid", "generation"], how="anti")
        since = pl.lit(release.created_at, dtype=pl.Datetime("us", "UTC"))
        found.append(new.with_columns(since.alias("event_timestamp"), pl.lit(release.release_id).alias("release_id")))
        last = pl.concat([last.join(rows, on="item_id", how="anti"), rows])
    return _with_prefixes(pl.concat(found)).sort("item_id", "event_timestamp")


def _sids(warehouse: Warehouse, release: Release) -> pl.DataFrame:
    with reading(warehouse, release.release_id):
        rows = warehouse.scan("semantic_ids", version=release.tables["semantic_ids"])
        return rows.filter(pl.col("generation") == release.generation).select(*_ROW).cast(_ROW).collect()


def _with_prefixes(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with, for each depth, the codes down to it joined by ``_``: the names that `sid_features` has."""
    spelled = pl.col("codes").cast(pl.List(pl.String))
    depth = rows.select(pl.col("codes").list.len().max()).item() or 0
    prefixes = [
        pl.when(pl.col("codes").list.len() >= level).then(spelled.list.head(level).list.join("_")) for level in range(1, depth + 1)
    ]
    return rows.with_columns(pl.concat_list(prefixes).list.drop_nulls().alias("prefixes"))


def _written(rows: pl.DataFrame, path: Path) -> Path:
    with replacing(path) as beside:
        rows.write_parquet(beside)
    return path
