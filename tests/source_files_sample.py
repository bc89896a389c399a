"""Small sources of every format, and what ingest makes of them."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from sidlake.pipelines.ingest.reading import ingest
from sidlake.pipelines.recipe import load_recipe

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE = """
name = "sample"
[sources.items]
path = "{items}"
{source}
[items]
source = "items"
item_id = "id"
title = {title}
max_rejected_share = {share}
{more}
"""
EVENTS = """
[sources.events]
path = "{events}"
{event_source}
[interactions]
source = "events"
user_id = "user"
item_id = "item"
ts = "at"
max_rejected_share = 1.0
"""


def write(path: Path, rows: list[dict[str, object]], schema: dict[str, pl.DataType] | None = None) -> None:
    """Write rows as the file's ending says, values of CSV as `str` spells them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pl.DataFrame(rows, schema=schema, strict=False).write_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]), quoting=csv.QUOTE_MINIMAL)
            writer.writeheader()
            writer.writerows(rows)


def recipe_in(folder, items="items.csv", *, source="", title='"name"', more="", events=None, event_source="", share=1.0):
    """Return the recipe of these sources in `folder`."""
    text = RECIPE.format(items=items, source=source, title=title, more=more, share=share)
    text += EVENTS.format(events=events, event_source=event_source) if events else ""
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return load_recipe(folder / "recipe.toml")


def ingested(folder, items="items.csv", **settings):
    """Return what ingest makes of the sources in `folder`."""
    return ingest(recipe_in(folder, items, **settings), run_id="run", now=NOW)


def again(folder):
    """Return what ingest makes of the recipe that lies in `folder`."""
    return ingest(load_recipe(folder / "recipe.toml"), run_id="run", now=NOW)


def column(result, name, table="items"):
    """Return a column of a table as a list."""
    return getattr(result, table).column(name).to_pylist()


def refused(result):
    """Return rule and value of each refused row."""
    return [(row["rule"], row["value"]) for row in result.rejected_rows.to_pylist()]
