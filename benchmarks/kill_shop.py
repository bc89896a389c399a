"""The shop of `kill.py`: real products, what a process does to its warehouse, what a reader sees, and what it should have seen.

The sources are written by plain Python, so that the process that forks touches no library with threads. Every source row is valid
and unlike the others: each must be found in a release exactly once.
"""

import contextlib
import csv
import functools
import io
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import transformers.models.t5.modeling_t5
from matplotlib.figure import Figure
from PIL import Image

import sidlake.generative.checkpoint
import sidlake.generative.trainer
import sidlake.reports.files  # noqa: F401  loaded here, once, for all that is forked
from sidlake.cli import app as cli
from sidlake.errors import LawBroken
from sidlake.pipelines import release as publication
from sidlake.pipelines import steps as jobs
from sidlake.pipelines.embed.text import _text_encoder
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import new_run_id
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig
from sidlake.warehouse import catalog, content, laws, releases
from sidlake.warehouse.file_digests import check_files
from sidlake.warehouse.holds import hold_by, lift
from sidlake.warehouse.keep import vacuum
from sidlake.warehouse.tables import Warehouse

TRANSACTIONS = Path(__file__).resolve().parent.parent / "data" / "online_retail.parquet"
NUM_ITEMS = 40
POOL = 400
OPERATIONS = ("refresh", "retrain", "release", "rollback", "vacuum")
NUM_KEPT = 3  # releases that a vacuum keeps
ROWS = ("items", "events", "sids")
RECIPE = """
name = "kill"
[sources.items]
path = "items.jsonl"
format = "jsonl"
[sources.events]
path = "events.csv"
format = "csv"
[items]
source = "items"
item_id = "item_id"
title = { column = "title" }
price = { column = "price" }
[interactions]
source = "events"
user_id = "user_id"
item_id = "item_id"
ts = "ts"
[split]
kind = "leave_one_out"
[encoders.text]
precision = "float32"
[encoders.fusion.text]
dim = 8
[tokenizer]
widths = [4, 4, 16]
[trainer]
kind = "tiger"
d_model = 16
d_ff = 16
num_layers = 1
num_heads = 2
num_steps = 2
num_beams = 10
[[gates]]
metric = "unique_share"
minimum = 1.0
"""
_TIME = "%Y-%m-%d %H:%M:%S"
_TRAINED = {"model_metrics": ["release_id", "model", "split", "metric"], "recommendations": ["release_id", "user_id", "rank"]}
Tell = Callable[[str], None]


@dataclass
class Shop:
    """A folder with sources, recipe and warehouse; in memory, what the sources say and what each release held."""

    folder: Path
    pool: list[list[str]]
    items: dict[str, tuple[str, float]] = field(default_factory=dict)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def warehouse(self) -> Path:
        """The warehouse's folder."""
        return self.folder / "warehouse"

    @property
    def recipe(self) -> Path:
        """The recipe's file."""
        return self.folder / "recipe.toml"

    @classmethod
    def create(cls, folder: Path, pool: list[list[str]]) -> "Shop":
        """Return a shop of the first products, with its sources written."""
        folder.mkdir()
        shop = cls(folder, pool)
        shop.recipe.write_text(RECIPE)
        shop.items = {item: (title, 1.0 + row) for row, (item, title) in enumerate(pool[:NUM_ITEMS])}
        for row, item in enumerate(sorted(shop.items) * 2):
            shop._event(f"u{row % 10:02d}", item)
        shop._write()
        return shop

    @classmethod
    def copy_of(cls, other: "Shop", folder: Path) -> "Shop":
        """Return a copy of `other` in `folder`."""
        shutil.copytree(other.folder, folder)
        return cls(folder, other.pool, dict(other.items), list(other.events), dict(other.known))

    def grow(self, draw: random.Random) -> None:
        """Add a product and two purchases, and change a price: there is something to do for every step."""
        item, title = self.pool[len(self.items)]
        self.items[item] = (title, 5.0)
        changed = draw.choice(sorted(self.items))
        self.items[changed] = (self.items[changed][0], round(self.items[changed][1] + 0.01, 2))
        self._event(f"u{draw.randrange(10):02d}", item)
        self._event(f"u{draw.randrange(10):02d}", changed)
        self._write()

    def _event(self, user: str, item: str) -> None:
        when = datetime(2026, 1, 1) + timedelta(minutes=len(self.events))
        self.events.append((user, item, when.strftime(_TIME)))

    def _write(self) -> None:
        rows = [{"item_id": item, "title": title, "price": price} for item, (title, price) in self.items.items()]
        (self.folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with (self.folder / "events.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("user_id", "item_id", "ts"), *self.events])


def warm_up(folder: Path) -> None:
    """Load what operations need and what starts no threads: the modules, the text encoder, the compiled loops, the fonts."""
    assert transformers.models.t5.modeling_t5
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        _command("releases", "--warehouse", str(folder / "none"))
    Image.init()
    figure = Figure()
    figure.subplots().set_title("warm")
    figure.savefig(io.BytesIO(), format="svg")
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE)
    _text_encoder(load_recipe(recipe).encoders.text).encode(["warm"])
    x_ND = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    ResidualKMeans.fit(x_ND, ResidualKMeansConfig(widths=(4, 4))).encode(x_ND)


def tell_pool(tell: Tell) -> None:
    """Tell the number and description of the products that sell most, as JSON."""
    rows = pl.scan_parquet(TRANSACTIONS).filter(pl.col("StockCode").str.contains(r"^\d{5}"), pl.col("Description") != "")
    best = rows.group_by("StockCode").agg(pl.len(), pl.col("Description").max()).sort("len", "StockCode", descending=[True, False])
    names = best.select("StockCode", pl.col("Description").str.replace_all(r"\s+", " ").str.strip_chars())
    tell(json.dumps([list(pair) for pair in names.head(POOL).collect().rows()]))


# ------------------------------------------------------------------------------------------------------- what processes do


def operate(operation: str, shop: Shop, tell: Tell) -> None:
    """Do `operation` on the shop's warehouse as the command line does it, telling each phase as it begins."""
    _announce_phases(tell)
    warehouse = Warehouse(shop.warehouse)
    if operation in ("refresh", "retrain", "release"):
        _resume(warehouse)
    if operation in ("refresh", "retrain"):
        _command("run", operation, "--recipe", str(shop.recipe), "--warehouse", str(shop.warehouse))
    elif operation == "release":
        _publish_again(warehouse)
    elif operation == "rollback":
        target = releases.history(warehouse)[-2].release_id
        _command("rollback", target, "--reason", "benchmark", "--warehouse", str(shop.warehouse))
    else:
        _command("vacuum", "--keep", str(NUM_KEPT), "--warehouse", str(shop.warehouse))


def _resume(warehouse: Warehouse) -> None:
    """Lift the hold of an earlier operation's rollback."""
    latest = releases.current(warehouse)
    if latest and hold_by(warehouse, latest):
        lift(warehouse, latest, reason="benchmark")


def _command(*arguments: str) -> None:
    """Run the command line in this process; what it exits with, unless 0, ends the process."""
    sys.argv = ["sidlake", *arguments]
    try:
        cli.main()
    except SystemExit as stop:
        if stop.code:
            raise


def _publish_again(warehouse: Warehouse) -> None:
    """Publish the current release's rows once more, with a quality table written anew."""
    latest, run_id = releases.get(warehouse), new_run_id()
    with warehouse.writing(run_id):
        quality = warehouse.read("sid_quality", version=latest.tables["sid_quality"])
        tables = latest.tables | {"sid_quality": warehouse.overwrite("sid_quality", quality, run_id=run_id)}
        kept = {field.name: getattr(latest, field.name) for field in fields(releases.ReleaseDraft) if field.name != "run_id"}
        draft = releases.ReleaseDraft(**(kept | {"tables": tables, "run_id": run_id, "reason": "benchmark"}))
        releases.publish(warehouse, draft, expected_parent=latest.release_id)
        publication.refresh_catalog(warehouse)


def _announce_phases(tell: Tell) -> None:
    """Tell when a step, a commit, the verification and the catalogue begin, and when what is inside a step has ended."""
    step = "start"

    def announce(owner: object, name: str, label: Callable[..., str]) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapper(*arguments: Any, **settings: Any) -> Any:  # noqa: ANN401
            tell(f"{step}: {label(*arguments)}")
            result = original(*arguments, **settings)
            tell(f"{step}: after {label(*arguments)}")
            return result

        setattr(owner, name, wrapper)

    run_step = jobs.run_step

    def told_step(ctx: Any, what: Any) -> Any:  # noqa: ANN401
        nonlocal step
        step = what.name
        tell(step)
        return run_step(ctx, what)

    jobs.run_step = told_step
    for name in ("_write", "append", "append_files", "upsert", "restore"):
        announce(Warehouse, name, lambda _, table, *__: f"commit {table}")
    announce(releases, "verify", lambda *_: "verify")
    announce(releases, "content_hash", lambda *_: "hash")
    announce(catalog, "write_catalog", lambda *_: "catalogue")  # which a release reaches through refresh_catalog
    announce(vacuum, "write_catalog", lambda *_: "catalogue")
    announce(vacuum, "_unneeded", lambda *_: "search")
    announce(vacuum, "_delete", lambda *_: "delete")


# ------------------------------------------------------------------------------------------------------- what readers see


def tell_state(shop: Shop, tell: Tell, *, every_file: bool = False) -> None:
    """Tell, as JSON, what a reader of the warehouse finds: all releases, and the rows of the current one, re-verified.

    With `every_file` the files of all releases that can be read are compared with what was published.
    """
    warehouse = Warehouse(shop.warehouse)
    known = releases.history(warehouse)
    state: dict[str, Any] = {"releases": [[one.release_id, one.content_hash] for one in known], "wrong": [], "laws": []}
    release = known[-1]
    try:
        laws.verify(warehouse, release.tables, generation=release.generation)
    except LawBroken as error:
        state["laws"].append(f"{release.release_id}: {error}")
    if content.content_hash(warehouse, release.tables, release.generation) != release.content_hash:
        state["wrong"].append(f"{release.release_id}: another content hash")
    for one in releases.readable(warehouse) if every_file else ():
        check_files(warehouse, one.tables)
    tell(json.dumps(state | _rows(warehouse, release)))


def _rows(warehouse: Warehouse, release: releases.Release) -> dict[str, Any]:
    """Return the rows of `release` as lists, in which a row that is there twice shows, and the number of other rows that are."""

    def rows(table: str, columns: list[str], version: int | None) -> list[list[Any]]:
        return sorted(list(row.values()) for row in warehouse.read(table, version=version, columns=columns).to_pylist())

    tables = release.tables
    sids = rows("semantic_ids", ["item_id", "sid", "generation"], tables["semantic_ids"])
    events = rows("interactions", ["user_id", "item_id", "ts"], tables["interactions"])
    stale = not catalog.is_current(warehouse)
    with catalog.connect(warehouse) as connection:
        in_catalogue = connection.execute("SELECT count(*), count(DISTINCT sid) FROM items_with_sids").fetchall()[0]
    twice = _twice(rows("item_embeddings", ["item_id", "modality", "encoder_id", "content_hash"], tables["item_embeddings"]))
    twice += sum(_twice(rows(table, key, None)) for table, key in _TRAINED.items() if warehouse.exists(table))
    return {
        "release": release.release_id,
        "items": rows("items", ["item_id", "title", "price"], tables["items"]),
        "events": [[user, item, ts.strftime(_TIME)] for user, item, ts in events],
        "sids": [[item, sid] for item, sid, generation in sids if generation == release.generation],
        "in_catalogue": list(in_catalogue),
        "twice": twice,
        "stale": stale,
    }


def _twice(rows: list[list[Any]]) -> int:
    return sum(count - 1 for count in Counter(map(tuple, rows)).values())


def judge(
    operation: str, before: dict[str, Any], now: dict[str, Any], shop: Shop, *, ended: bool = False, finished: bool = False
) -> Counter[str]:
    """Return how much is wrong with what a reader sees `now`, after `operation` began where `before` was read.

    `ended` says that it was not killed, so that the catalogue's file must show what is there, and `finished` that it also had
    something to do, so that a new release must be there.
    """
    num_before, num_new = len(before["releases"]), len(now["releases"]) - len(before["releases"])
    allowed = (0,) if operation == "vacuum" else (1,) if finished else (0, 1)
    found: Counter[str] = Counter(
        torn=len(now["wrong"]) + (now["releases"][:num_before] != before["releases"]) + (num_new not in (0, 1)),
        not_recovered=int(num_new not in allowed),
        law_failures=len(now["laws"]) + (now["in_catalogue"] != [len(now["items"])] * 2) + (ended and now["stale"]),
        duplicated=now["twice"],
    )
    expected = _expected(operation, before, shop) if num_new else before
    for name in ROWS:
        have, want = _counted(now, name), _counted(expected, name)
        if name not in expected:  # SIDs that the job has chosen: one for each item
            have, want = Counter(item for item, _ in have.elements()), Counter(item for item, _, _ in _counted(expected, "items"))
        found["lost"] += (want - have).total()
        found["duplicated"] += (have - want).total()
    if operation == "refresh":
        sids = dict(now["sids"])
        found["law_failures"] += sum(sids.get(item) != sid for item, sid in before["sids"])
    return found


def _counted(state: dict[str, Any], name: str) -> Counter[tuple[Any, ...]]:
    return Counter(map(tuple, state.get(name, [])))


def _expected(operation: str, before: dict[str, Any], shop: Shop) -> dict[str, Any]:
    """Return the rows of the release that `operation` makes; without SIDs where the job chooses them."""
    if operation == "rollback":
        return shop.known[before["releases"][-2][0]]
    if operation == "release":
        return before
    items = sorted([item, title, price] for item, (title, price) in shop.items.items())
    return {"items": items, "events": sorted(map(list, shop.events))}
