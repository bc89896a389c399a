"""Two years of a shop, day by day: `retrain` on the first part, then a `refresh` per trading day, judged by what lies in storage.

    python benchmarks/replay.py --days 100 --json

The transactions lie in a folder, one Parquet file per day, and a day's file is put there before its refresh. After each day the
published SIDs are read from the tables by DuckDB alone, without the pipeline's own checks: `moved` counts SIDs that differ from
what an earlier release of the generation published, `duplicates` items that share a SID, `needless` days without a new item that
assigned or embedded what was known. Trading days are consecutive from `--start` on.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from sidlake.pipelines.recipe import Recipe, load_recipe
from sidlake.pipelines.run import Job, RunContext, StepReport, new_run_id, run_step
from sidlake.pipelines.steps import steps_of
from sidlake.warehouse.releases import Release, current
from sidlake.warehouse.tables import Warehouse

ROOT = Path(__file__).resolve().parent.parent
TRANSACTIONS = ROOT / "data" / "online_retail.parquet"
RECIPE = ROOT / "recipes" / "online_retail.toml"
_LEFT_OUT = {"report"}  # a page for people, after the release; drawing it takes longer than all the rest


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=100, help="trading days to refresh, from --start on")
    parser.add_argument("--start", type=date.fromisoformat, default=date(2010, 12, 1), help="first day that is refreshed")
    parser.add_argument("--warehouse", type=Path, help="folder to work in; a temporary one by default")
    parser.add_argument("--transactions", type=Path, default=TRANSACTIONS)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sidlake-replay-") as temporary:
        folder = options.warehouse or Path(temporary)
        figures = replay(folder, options.transactions, options.recipe, start=options.start, days=options.days)
    text = json.dumps(figures, indent=None if options.json else 1)
    print(text)
    return 0 if figures["moved"] == figures["duplicates"] == figures["needless"] == 0 else 1


def replay(folder: Path, transactions: Path, recipe_path: Path, *, start: date, days: int) -> dict[str, Any]:
    """Return what the replay of `days` trading days from `start` on showed; `folder` keeps the warehouse and its sources."""
    rows = pl.read_parquet(transactions)
    day = pl.col("InvoiceDate").dt.date()
    trading = rows.select(day.alias("day")).unique().sort("day")["day"].to_list()
    chosen = [at for at in trading if at >= start][:days]
    recipe = _recipe_over_days(folder, recipe_path)
    warehouse = Warehouse.create_or_open(folder / "warehouse")
    for at in [at for at in trading if at < start]:
        _put(folder, rows.filter(day == at), at)
    _run(warehouse, recipe, "retrain")
    judge = Judge(warehouse)
    judge.look()
    for at in chosen:
        _put(folder, rows.filter(day == at), at)
        done = _run(warehouse, recipe, "refresh")
        judge.look(at, done)
        slowest = ", ".join(f"{step} {took:.2f}" for step, took in sorted(done.steps.items(), key=lambda entry: -entry[1])[:4])
        print(f"{at} {done.seconds:6.2f} s  {judge.days[-1]['new_items']} new items  ({slowest})", file=sys.stderr, flush=True)
    return judge.figures() | {"days": len(chosen), "first_day": str(chosen[0]), "last_day": str(chosen[-1])}


@dataclass(frozen=True, kw_only=True, slots=True)
class Day:
    """What one refresh took and what its steps report; processor seconds tell of a busy machine what seconds cannot."""

    seconds: float
    cpu_seconds: float
    steps: dict[str, float]
    reports: list[StepReport]


class Judge:
    """What each release published, read from its files, beside what the releases before it had published."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self.published: dict[tuple[str, str], str] = {}  # (generation, item) -> SID as first published
        self.days: list[dict[str, Any]] = []
        self.releases: set[str] = set()
        self.moved = self.duplicates = self.needless = 0

    def look(self, at: date | None = None, day: Day | None = None) -> None:
        """Compare the current release with all before it; with `at`, keep the day's figures."""
        release = current(self.warehouse)
        assert release is not None, "the replay starts with a release"
        found = self._sids(release)
        keys = [(release.generation, item) for item, _ in found]
        new = sum(key not in self.published for key in keys)
        self.moved += sum(self.published.get(key, sid) != sid for key, (_, sid) in zip(keys, found, strict=True))
        self.duplicates += len(found) - len({sid for _, sid in found}) + len(found) - len({item for item, _ in found})
        for key, (_, sid) in zip(keys, found, strict=True):
            self.published.setdefault(key, sid)
        fresh = release.release_id not in self.releases
        self.releases.add(release.release_id)
        if at is None or day is None:
            return
        did = {report.step: report for report in day.reports}
        embedded, assigned = did["embed_text"].details.get("embedded", 0), did["assign"].details.get("assigned", 0)
        assert isinstance(embedded, int)
        assert isinstance(assigned, int)
        described = did["ingest"].details.get("described", 0)
        assert isinstance(described, int)
        self.needless += int((new == 0 and assigned > 0) or embedded > described + new)
        counts = {"new_items": new, "embedded": embedded, "assigned": assigned, "described": described}
        self.days.append(
            {"day": str(at), "seconds": day.seconds, "cpu": day.cpu_seconds, "steps": day.steps, "released": fresh, **counts}
        )

    def _sids(self, release: Release) -> list[tuple[str, str]]:
        files = self.warehouse.files("semantic_ids", version=release.tables["semantic_ids"])
        return duckdb.execute(
            "SELECT item_id, array_to_string(codes, '-') FROM read_parquet($files, union_by_name = true) "
            "WHERE generation = $generation",
            {"files": files, "generation": release.generation},
        ).fetchall()

    def figures(self) -> dict[str, Any]:
        """Return the figures of all days; without a new item nothing may be assigned (`needless`)."""
        seconds = sorted(day["seconds"] for day in self.days)
        share = {step: round(statistics.mean(day["steps"][step] for day in self.days), 3) for step in self.days[0]["steps"]}
        return {
            "moved": self.moved,
            "duplicates": self.duplicates,
            "needless": self.needless,
            "releases": len(self.releases),
            "seconds_per_day": {
                "mean": round(statistics.mean(seconds), 2),
                "p50": round(statistics.median(seconds), 2),
                "p95": round(seconds[int(0.95 * (len(seconds) - 1))], 2),
                "first_ten": round(statistics.mean(day["seconds"] for day in self.days[:10]), 2),
                "last_ten": round(statistics.mean(day["seconds"] for day in self.days[-10:]), 2),
            },
            "cpu_seconds_per_day": round(statistics.mean(day["cpu"] for day in self.days), 2),
            "seconds_per_step": share,
            "items": {name: sum(day[name] for day in self.days) for name in ("new_items", "embedded", "assigned", "described")},
            "days_without_new_items": sum(day["new_items"] == 0 for day in self.days),
            "cores": len(os.sched_getaffinity(0)),
        }


def _run(warehouse: Warehouse, recipe: Recipe, job: Job) -> Day:
    run_id = new_run_id()
    start, cpu = time.perf_counter(), time.process_time()
    ctx = RunContext.open(warehouse, recipe, run_id=run_id, job=job)
    steps: dict[str, float] = {}
    reports: list[StepReport] = []
    with warehouse.writing(run_id):
        for step in (step for step in steps_of(ctx.job) if step.name not in _LEFT_OUT):
            before = time.perf_counter()
            reports.append(run_step(ctx, step))
            steps[reports[-1].step] = round(time.perf_counter() - before, 3)
    warehouse.discard_staging(run_id)
    return Day(seconds=time.perf_counter() - start, cpu_seconds=time.process_time() - cpu, steps=steps, reports=reports)


def _put(folder: Path, rows: pl.DataFrame, at: date) -> None:
    target = folder / "days" / f"{at}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(target)


def _recipe_over_days(folder: Path, recipe_path: Path) -> Recipe:
    """Return the shop's recipe over the folder of days, without the trainer, which is not what is measured."""
    text = recipe_path.read_text(encoding="utf-8")
    start = text.index("path = ")
    text = text[:start] + 'path = "days"' + text[text.index("\n", start) :]
    if "[trainer]" in text:
        before, _, after = text.partition("[trainer]")
        text = before + after[after.index("\n[") + 1 :]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.toml"
    path.write_text(
        text + ('\n[encoders.text]\nprecision = "float32"\n' if "[encoders.text]" not in text else ""), encoding="utf-8"
    )
    return load_recipe(path)


if __name__ == "__main__":
    began = datetime.now()
    code = main()
    print(f"{(datetime.now() - began).total_seconds():.0f} s in all", file=sys.stderr)
    sys.exit(code)
