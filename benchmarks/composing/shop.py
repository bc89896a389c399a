"""The shop of `compositions`: its sources and recipe on disk, and the one place that calls what sidlake does to a warehouse.

Everything is tiny and made from numbers: two dozen items with vectors from a table, so that no model runs, four users, days of a
few events. The warehouse lies in a folder in memory where the machine has one. What the acts need of sidlake goes through this
module, so that a change of its functions is met here once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from sidlake.pipelines.generation import refuse_changed_generation
from sidlake.pipelines.maintain import maintain
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id, run_step
from sidlake.pipelines.run_state import forget_state
from sidlake.pipelines.steps import steps_of
from sidlake.quality.assignment import Assignment
from sidlake.warehouse import holds, releases
from sidlake.warehouse.catalog import write_catalog
from sidlake.warehouse.keep import pins, retention, vacuum
from sidlake.warehouse.tables import Warehouse

if TYPE_CHECKING:
    from composing.jobs import Run

__all__ = ["FIRST_DAY", "Settings", "Shop", "new_run", "step_names"]

FIRST_DAY = datetime(2020, 1, 1, 9)
DIMENSIONS = 6
_SKIPPED = {"train", "report"}  # a model, a page: not what is looked for here


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the recipe says that acts may change; all but `gate` and `retirement` is a matter of the generation."""

    widths: tuple[int, ...] = (3, 4, 8)
    fusion: tuple[str, ...] = ("style",)
    uniqueness: str = "reassign"
    seed: int = 0
    gate: bool = False

    @property
    def of_generation(self) -> tuple[Any, ...]:
        """What only a retrain may change."""
        return self.widths, self.fusion, self.uniqueness, self.seed


@dataclass
class Shop:
    """A folder with sources, a recipe and the warehouse ``w``."""

    folder: Path
    kind: str
    _opened: dict[str, Warehouse] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "kind": self.kind, "_opened": {}}

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse as this process opened it."""
        return self.opened("w")

    def opened(self, name: str) -> Warehouse:
        """Return the warehouse at `name`; a name but ``w`` is another machine's mount of it, whose lock is its own."""
        if name not in self._opened:
            root = self.folder / name
            if name != "w" and not root.exists():
                root.mkdir()
                for shared in ("delta", "artifacts", "checkpoints"):
                    (root / shared).symlink_to(self.folder / "w" / shared)
            self._opened[name] = Warehouse.create_or_open(root)
        return self._opened[name]

    def copy(self, folder: Path, *, forgetting: bool) -> Shop:
        """Return a copy of all files; `forgetting` leaves out what the warehouse remembers of sources."""
        ignore = shutil.ignore_patterns("cache", "other*") if forgetting else shutil.ignore_patterns("other*")
        shutil.copytree(self.folder, folder, ignore=ignore)
        return Shop(folder, self.kind)

    # Sources

    def write_items(self, titles: dict[str, str]) -> None:
        """Write the list of items."""
        frame = {"id": sorted(titles), "title": [titles[item] for item in sorted(titles)]}
        pl.DataFrame(frame, schema={"id": pl.String, "title": pl.String}).write_parquet(self.folder / "items.parquet")

    def write_file(self, name: str, rows: Sequence[tuple[str, str, int, str]]) -> None:
        """Write a file of events: user, item, minute since `FIRST_DAY`, title."""
        (self.folder / "events").mkdir(parents=True, exist_ok=True)
        columns: dict[str, list[Any]] = {
            "user": [row[0] for row in rows],
            "item": [row[1] for row in rows],
            "at": [FIRST_DAY + timedelta(minutes=row[2]) for row in rows],
            "title": [row[3] for row in rows],
        }
        schema = {"user": pl.String, "item": pl.String, "at": pl.Datetime("us"), "title": pl.String}
        pl.DataFrame(columns, schema=schema).write_parquet(self.folder / "events" / f"{name}.parquet")

    def remove_file(self, name: str) -> None:
        """Remove a file of events."""
        (self.folder / "events" / f"{name}.parquet").unlink()

    def write_vectors(self, versions: dict[str, int]) -> None:
        """Write both tables of vectors, of each item by the number of times it has changed."""
        for table, salt in (("style", 1), ("usage", 2)):
            vectors = [_vector(item, version, salt) for item, version in sorted(versions.items())]
            pl.DataFrame({"item_id": sorted(versions), "vector": vectors}).write_parquet(self.folder / f"{table}.parquet")

    def write_recipe(self, settings: Settings) -> None:
        """Write the recipe."""
        (self.folder / "recipe.toml").write_text(_recipe(self.kind, settings))

    # Acts

    def running(self, run: Run, *, on: str = "w") -> Iterator[str]:
        """Do `run` as an orchestrator does, on the machine `on`; yield the name of each step before it.

        What the run has noted of itself stays when it fails, as a killed one leaves it.
        """
        warehouse = self.opened(on)
        ctx = self._open(warehouse, run)
        if run.job == "refresh":
            _ = ctx.generation
            refuse_changed_generation(ctx)
        with warehouse.writing(run.run_id):
            for step in steps_of(run.job):  # type: ignore[arg-type]
                name = step.name
                if name in _SKIPPED or (run.steps is not None and name not in run.steps):
                    continue
                yield name
                if run.steps is not None:
                    ctx = self._open(warehouse, run)  # each asset opens the run anew
                run_step(ctx, step)
        warehouse.discard_staging(run.run_id)
        forget_state(warehouse, run.run_id)

    def _open(self, warehouse: Warehouse, run: Run) -> RunContext:
        recipe, why = load_recipe(self.folder / "recipe.toml"), "composition" if run.override else None
        known = run.again and run.steps is not None  # what the run has done before is counted on
        return RunContext.open(
            warehouse,
            recipe,
            run_id=run.run_id,
            job=run.job,  # type: ignore[arg-type]
            override=why,
            given=None if run.given is None else self._dealt(recipe.tokenizer.widths or (3, 4, 8), run.given),
            going_on=known,
        )

    def _dealt(self, widths: Sequence[int], number: int) -> Assignment:
        """Return SIDs by chance for all items that the sources describe."""
        files = [self.folder / "items.parquet", *sorted((self.folder / "events").glob("*.parquet"))]
        names = [pl.read_parquet(file) for file in files if file.exists()]
        ids = sorted({one for frame in names for one in frame["id" if "id" in frame.columns else "item"].to_list()})
        if self.kind in ("list", "missing"):
            ids = sorted(pl.read_parquet(self.folder / "items.parquet")["id"].to_list())
        numbers = np.random.default_rng(number).choice(prod(widths), min(len(ids), prod(widths)), replace=False)
        codes_NL = np.stack(np.unravel_index(numbers, tuple(widths)), axis=1).astype(np.int32)
        return Assignment(name="dealt", item_ids=pa.array(ids[: len(codes_NL)]), codes_NL=codes_NL, widths=tuple(widths))

    def maintain(self) -> None:
        """Do the weekly upkeep, keeping every release readable."""
        recipe = load_recipe(self.folder / "recipe.toml")
        ctx = RunContext.open(self.warehouse, recipe, run_id=new_run_id(), job="refresh", override="composition")
        maintain(ctx, retention=retention.Retention(keep=10_000, days=None))

    def rollback(self, release_id: str) -> None:
        """Make an older release current."""
        releases.rollback(self.warehouse, release_id, "composition")
        write_catalog(self.warehouse)

    def lift(self) -> None:
        """Let runs publish again after a rollback."""
        holds.lift(self.warehouse, releases.current(self.warehouse), reason="composition")

    def vacuum(self, *, keep: int, grace: timedelta) -> list[str]:
        """Free what no live release needs, and return the releases that can no longer be read."""
        return vacuum.vacuum(self.warehouse, retention.Retention(keep=keep, days=None), grace=grace).unreadable

    def pin(self, name: str, release_id: str) -> None:
        """Point a name at a release."""
        pins.pin(self.warehouse, name, release_id)

    def unpin(self, name: str) -> None:
        """Take a name away."""
        pins.unpin(self.warehouse, name)


def new_run() -> str:
    """Return the id of a new run."""
    return new_run_id()


def step_names(job: str) -> list[str]:
    """Return the names of the steps of `job` that run here."""
    return [step.name for step in steps_of(job) if step.name not in _SKIPPED]  # type: ignore[arg-type]


def _vector(item: str, version: int, salt: int) -> list[float]:
    """Return the item's vector: near one of five centres, further from it by what is its own."""
    number = int(item[1:])
    centre = np.random.default_rng([salt, number % 5]).standard_normal(DIMENSIONS)
    own = np.random.default_rng([salt, number, version]).standard_normal(DIMENSIONS)
    return [float(value) for value in (centre + 0.5 * own).astype(np.float32)]


_SOURCES = {
    "list": """
[sources.items]
path = "items.parquet"
[sources.events]
path = "events"
[items]
source = "items"
item_id = "id"
title = { column = "title" }
max_rejected_share = 1.0
[interactions]
source = "events"
max_rejected_share = 1.0
""",
    "sales": """
[sources.sales]
path = "events"
[items]
source = "sales"
item_id = "item"
order_by = "at"
title = { column = "title", pick = "latest" }
max_rejected_share = 1.0
[interactions]
source = "sales"
max_rejected_share = 1.0
[retirement]
after_days = 4
""",
}
_SOURCES["quiet"] = _SOURCES["list"] + "[retirement]\nafter_days = 4\n"
_SOURCES["missing"] = _SOURCES["list"] + "[retirement]\nmissing = true\n"


def _recipe(kind: str, settings: Settings) -> str:
    parts = [f'name = "composition"{_SOURCES[kind]}']
    events = 'user_id = "user"\nitem_id = "item"\nts = "at"\n'
    parts[0] = parts[0].replace("[interactions]\n", "[interactions]\n" + events)
    parts.append('[split]\nkind = "leave_one_out"\n')
    given = [name for name in ("style", "usage") if name in settings.fusion]
    parts += [f'[encoders.precomputed.{name}]\npath = "{name}.parquet"\n' for name in given]
    if "behaviour" in settings.fusion:
        parts.append("[encoders.behaviour]\ndim = 2\nmin_count = 1\n")
    parts += [f"[encoders.fusion.{name}]\ndim = {2 if name == 'behaviour' else 4}\n" for name in settings.fusion]
    parts.append(
        f'[tokenizer]\nwidths = {json.dumps(list(settings.widths))}\ndevice = "cpu"\nseed = {settings.seed}\n'
        f'uniqueness = "{settings.uniqueness}"\ndigits = 16\n'
    )
    if settings.gate:
        parts.append('[[gates]]\nmetric = "moved_share"\nmaximum = -1.0\n')
    return "".join(parts)
