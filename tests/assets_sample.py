"""A small shop for the tests of the assets, loaded with runpy: 60 products, 40 customers, recipes, and ways to run jobs on them."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl

from sidlake.assets.resources import SidlakeResource

COLOURS = ["red", "blue", "green", "white", "pink", "black"]
KINDS = ["mug", "lamp", "candle", "bag", "clock", "card", "plate", "frame", "box", "bell"]

RECIPE = """
name = "small"
[sources.items]
path = "items.parquet"
[items]
source = "items"
item_id = "item_id"
title = { column = "title" }
price = { column = "price" }
[encoders.text]
precision = "float32"
[encoders.fusion.text]
dim = 16
[tokenizer]
widths = [4, 4, 8]
[[gates]]
metric = "unique_share"
minimum = 1.0
"""
INTERACTIONS = """
[sources.events]
path = "events.parquet"
[interactions]
source = "events"
user_id = "user"
item_id = "item_id"
ts = "ts"
[split]
kind = "leave_one_out"
"""
BEHAVIOUR = """
[encoders.behaviour]
dim = 8
[encoders.fusion.behaviour]
dim = 8
"""
TRAINER = """
[trainer]
kind = "tiger"
d_model = 16
d_ff = 32
num_layers = 1
num_heads = 2
num_steps = 5
num_beams = 10
"""


def write_shop(folder: Path, *, more: str = INTERACTIONS) -> Path:
    """Write sources and recipe into `folder` and return the recipe's path."""
    draw = random.Random(1)
    titles = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
    items = [{"item_id": f"I{row:03d}", "title": title, "price": 1.0 + row} for row, title in enumerate(titles)]
    events = []
    for user in range(40):
        when = datetime(2026, 1, 1) + timedelta(hours=user)
        for _ in range(draw.randint(6, 14)):
            when += timedelta(days=draw.randint(1, 8))
            events.append({"user": f"u{user:02d}", "item_id": f"I{draw.randrange(len(items)):03d}", "ts": when})
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    pl.DataFrame(events).write_parquet(folder / "events.parquet")
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE + more)
    return recipe


def instance() -> dg.DagsterInstance:
    """Return an instance that keeps its runs in memory and sends nothing anywhere."""
    return dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}})


def resource(warehouse: Path, recipe: Path) -> SidlakeResource:
    return SidlakeResource(warehouse=str(warehouse), recipe=str(recipe))
