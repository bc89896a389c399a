"""What a bad input is tried on: acts that do something wrong in an empty folder, for the table in bad_inputs.py."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import warehouse_sample as sample

from sidlake.cli import app as cli
from sidlake.encoders.precomputed import PrecomputedConfig, load_precomputed
from sidlake.errors import SidlakeError
from sidlake.pipelines.ingest.reading import ingest
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext
from sidlake.tokenizers.artifact import load_codebook
from sidlake.warehouse.laws import verify
from sidlake.warehouse.releases import get, publish
from sidlake.warehouse.tables import Warehouse

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE = """
name = "bad"
[sources.items]
path = "items.parquet"
[items]
source = "items"
item_id = "id"
title = { column = "name" }
"""
EVENTS = """
[sources.events]
path = "events.parquet"
[interactions]
source = "events"
user_id = "user"
item_id = "item"
ts = "at"
"""
GOOD = {"id": ["a", "b"], "name": ["red cup", "blue lamp"]}
BOUGHT = {"user": ["u", "u"], "item": ["a", "b"], "at": [NOW, NOW]}


class UsageError(Exception):
    """The command line refused an argument; what it says."""


def command(*arguments: str) -> Callable[[Path], object]:
    """Return an act that runs the command line in the folder's sample warehouse; {} in an argument is the folder."""

    def act(folder: Path) -> None:
        told, error = io.StringIO(), None
        sys_argv, sys.argv = sys.argv, ["sidlake", *(argument.replace("{}", str(folder)) for argument in arguments)]
        try:
            with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
                cli.main()
        except SystemExit as stop:
            error = stop.__context__
            if not stop.code:
                raise AssertionError(f"{arguments} was accepted") from stop
            if not isinstance(error, SidlakeError):
                raise UsageError(told.getvalue()) from stop
        finally:
            sys.argv = sys_argv
        assert isinstance(error, SidlakeError)
        raise error

    return act


def on_release(*arguments: str) -> Callable[[Path], object]:
    """Return an act that runs the command line on a warehouse with one release."""

    def act(folder: Path) -> object:
        released(folder)
        return command(*arguments, "-w", str(folder))(folder)

    return act


def ingesting(
    items: Any = GOOD,  # columns, or the bytes of the file
    events: dict[str, Any] | None = None,
    *,
    recipe: str = "",
    form: str = "parquet",
) -> Callable[[Path], object]:
    """Return an act that ingests these columns (or bytes) with RECIPE, to which `recipe` is added."""

    def act(folder: Path) -> object:
        text = RECIPE.replace('path = "items.parquet"', f'path = "items.{form}"\nformat = "{form}"')
        path = folder / f"items.{form}"
        if isinstance(items, bytes):
            path.write_bytes(items)
        elif items is not None:
            pl.DataFrame(items, strict=False).write_parquet(path)
        if events is not None:
            pl.DataFrame(events, strict=False).write_parquet(folder / "events.parquet")
            text += EVENTS
        return ingest(recipe_of(folder, text + recipe), run_id="run", now=NOW)

    return act


def recipe_of(folder: Path, text: str | bytes) -> Any:
    path = folder / "recipe.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_recipe(path)


def reading(text: str | bytes, old: str = "", new: str = "") -> Callable[[Path], object]:
    """Return an act that reads RECIPE with `text` added, or with `old` replaced by `new`."""
    whole = text if isinstance(text, bytes) else (RECIPE + text).replace(old, new) if old else RECIPE + text
    return lambda folder: recipe_of(folder, whole)


def tokenizing(text: str) -> Callable[[Path], object]:
    """Return an act that reads a recipe with this [tokenizer] and makes its settings."""
    return lambda folder: recipe_of(folder, RECIPE + "[tokenizer]\n" + text).tokenizer.settings(100, device="cpu")


def vectors(table: dict[str, Any] | None = None, *, ids: str | None = None, data: object = None) -> Callable[[Path], object]:
    """Return an act that loads a precomputed table: a Parquet file of `table`, or an .npy of `data` with a file of `ids`."""

    def act(folder: Path) -> object:
        if data is None:
            if table is not None:
                pq.write_table(pa.table(table), folder / "v.parquet")
            return load_precomputed(PrecomputedConfig(path="v.parquet"), ["a", "b"], root=folder)
        np.save(folder / "v.npy", data, allow_pickle=True)
        (folder / "ids.txt").write_text(ids or "")
        return load_precomputed(PrecomputedConfig(path="v.npy", ids_path="ids.txt" if ids else None), ["a", "b"], root=folder)

    return act


def importing(content: str, *arguments: str) -> Callable[[Path], object]:
    """Return an act that imports a file of semantic IDs from the command line."""

    def act(folder: Path) -> object:
        (folder / "sids.json").write_text(content)
        return command("import", "{}/sids.json", "-w", "{}", *(arguments or ("-f", "index_json", "-n", "theirs")))(folder)

    return act


def released(folder: Path) -> Warehouse:
    """Return a warehouse with one lawful release: a copy, since making it takes half a second."""
    shutil.copytree(_released().name, folder, dirs_exist_ok=True)
    return Warehouse(folder)


@cache
def _released() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="sidlake-bad-")
    warehouse = Warehouse.create_or_open(folder.name)
    publish(warehouse, sample.draft(sample.write(warehouse)), expected_parent=None)
    return folder


def damaged(damage: Callable[[Warehouse], object], use: Callable[[Warehouse], object]) -> Callable[[Path], object]:
    """Return an act that damages a warehouse with one release, then uses it."""

    def act(folder: Path) -> object:
        warehouse = released(folder)
        damage(warehouse)
        return use(warehouse)

    return act


def using(use: Callable[[Warehouse], object]) -> Callable[[Path], object]:
    """Return an act that uses a warehouse with one release."""
    return lambda folder: use(released(folder))


def data_file(warehouse: Warehouse, table: str = "items") -> Path:
    return Path(warehouse.files(table)[0])


def log_file(warehouse: Warehouse, table: str = "items") -> Path:
    return Path(warehouse.table_url(table)) / "_delta_log" / f"{0:020d}.json"


def verified(warehouse: Warehouse) -> object:
    release = get(warehouse)
    return verify(warehouse, release.tables, generation=release.generation)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def republish(warehouse: Warehouse, parent: str | None = "r000001", **changed: int | None) -> object:
    """Publish the release's tables again with other versions of some, or without those whose version is None."""
    tables = {table: version for table, version in (get(warehouse).tables | changed).items() if version is not None}
    return publish(warehouse, sample.draft(tables), expected_parent=parent)


def taken_up(folder: Path, content: str) -> object:
    warehouse = released(folder)
    warehouse.put("runs/taken-up.json", content.encode())
    recipe = recipe_of(folder, RECIPE)
    return RunContext.open(warehouse, recipe, run_id="taken-up", job="refresh")


def loaded_codebook(folder: Path, content: bytes | None) -> object:
    path = folder / "codebook.safetensors"
    if content is not None:
        path.write_bytes(content)
    return load_codebook(path)


def second_writer(folder: Path) -> None:
    warehouse = released(folder)
    with warehouse.writing("first"):
        warehouse.overwrite("items", sample.items(["a"]), run_id="second")
