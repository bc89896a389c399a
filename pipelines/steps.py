"""Jobs: the steps in order. `refresh` brings in what is new; `retrain` also learns a new generation and trains the recommender.

The CLI runs a job here; Dagster runs the same step functions one asset each (`sidlake.assets`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sidlake.pipelines.assign import assign, fit_codebooks
from sidlake.pipelines.check import check_quality
from sidlake.pipelines.embed.image import embed_image, embed_precomputed
from sidlake.pipelines.features import build_sequences, build_sid_trie
from sidlake.pipelines.fuse import embed_behaviour, embed_text, fuse
from sidlake.pipelines.ingest.step import ingest_sources
from sidlake.pipelines.release import release
from sidlake.pipelines.report import write_quality_report
from sidlake.pipelines.run import Job, RunContext, StepReport
from sidlake.pipelines.train import train_recommender
from sidlake.warehouse.places.storage import disk_errors

__all__ = ["JOBS", "Step", "describe", "run_job", "run_step"]

Step = Callable[[RunContext], StepReport]

JOBS: dict[Job, tuple[Step, ...]] = {
    "refresh": (
        ingest_sources,
        embed_text,
        embed_image,
        embed_precomputed,
        fuse,
        assign,
        build_sequences,
        build_sid_trie,
        check_quality,
        release,
        write_quality_report,
    ),
    "retrain": (
        ingest_sources,
        embed_text,
        embed_image,
        embed_precomputed,
        embed_behaviour,
        fuse,
        fit_codebooks,
        assign,
        build_sequences,
        build_sid_trie,
        check_quality,
        release,
        train_recommender,
        write_quality_report,
    ),
}


def run_job(ctx: RunContext) -> list[StepReport]:
    """Run the steps of `ctx.job` under the warehouse's writer lock and return their reports.

    Raises the first step's error; what the run wrote until then is in no release, and its staging folder is removed. A refresh
    where no `retrain` was published raises `NotFoundError` before it reads anything, and any run after a rollback `HoldError`.
    """
    if ctx.job == "refresh":
        _ = ctx.generation
    ctx.refuse_held()
    reports = []
    try:
        with ctx.warehouse.writing(ctx.run_id):
            for step in JOBS[ctx.job]:
                start = time.perf_counter()
                report = run_step(ctx, step)
                ctx.progress.say(describe(report, time.perf_counter() - start))
                reports.append(report)
    finally:
        ctx.warehouse.discard_staging(ctx.run_id)
    return reports


def run_step(ctx: RunContext, step: Step) -> StepReport:
    """Return what one step reports; a full disk or a missing permission is a `StorageError` wherever it strikes."""
    with disk_errors(ctx.warehouse.root):
        return step(ctx)


def describe(report: StepReport, seconds: float) -> str:
    """Return one line about a step for a person.

    >>> describe(StepReport(step="assign", rows={"semantic_ids": 12}), 0.31)
    'assign            0.3 s  semantic_ids 12 rows'
    """
    rows = ", ".join(f"{table} {count:,} rows" for table, count in report.rows.items())
    details = ", ".join(f"{name} {value}" for name, value in report.details.items())
    what = "nothing to do" if report.skipped else "; ".join(part for part in (rows, details) if part)
    return f"{report.step:<15}{seconds:>6.1f} s  {what}"
