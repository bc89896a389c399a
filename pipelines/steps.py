"""The steps, in order, each declared once; and the two jobs that run them.

`refresh` brings in what is new; `retrain` also learns a new generation and trains the recommender. The command line runs a job
here, Dagster runs the same steps one asset each (`sidlake.assets`). To add a step, write its function in a file of its own and its
row here: order, skipping, the freshness guard, progress and Dagster's graph come from the row. What a step holds is measured
(`benchmarks/scale.py`, docs/scaling.md); steps that say nothing stream, or let DuckDB spill.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from sidlake.encoders.fusion.config import PAIR_KINDS
from sidlake.errors import StaleStepError
from sidlake.pipelines.assign import assign
from sidlake.pipelines.check import check_quality
from sidlake.pipelines.embed.behaviour import embed_behaviour
from sidlake.pipelines.embed.image import embed_image
from sidlake.pipelines.embed.precomputed import embed_precomputed
from sidlake.pipelines.embed.text import embed_text
from sidlake.pipelines.features import build_sequences, build_sid_trie
from sidlake.pipelines.fit import fit_codebooks
from sidlake.pipelines.fit_inputs.given_sids import digest_of_given
from sidlake.pipelines.fuse import fit_fusion, fuse
from sidlake.pipelines.generation import refuse_changed_generation
from sidlake.pipelines.ingest.step import ingest_settings, ingest_sources
from sidlake.pipelines.products import RELEASED, VECTORS
from sidlake.pipelines.recipe import Recipe
from sidlake.pipelines.release import release
from sidlake.pipelines.report import write_quality_report
from sidlake.pipelines.run import Holds, Job, RunContext, Step, StepReport, digest, run_step
from sidlake.pipelines.run_state import forget_state
from sidlake.pipelines.train import train_recommender
from sidlake.quality.gates import gates_in_force
from sidlake.quality.metrics.neighbours import BLOCK_BYTES
from sidlake.quality.readings import READINGS
from sidlake.tokenizers.registry import tokenizer_class

__all__ = ["JOBS", "STEPS", "describe", "refuse_stale", "run_job", "steps_of"]

_RETRAIN: frozenset[Job] = frozenset({"retrain"})


def _fit_needs_events(recipe: Recipe) -> bool:
    return bool(tokenizer_class(recipe.tokenizer.kind).fit_needs) and recipe.interactions is not None


def _has_events(recipe: Recipe) -> bool:
    return recipe.interactions is not None


def _publish(ctx: RunContext) -> StepReport:
    _ = ctx.generation  # where there is none yet, this says what to run first
    refuse_stale(ctx)
    return release(ctx)


_ALL = (
    Step(
        name="ingest",
        run=ingest_sources,
        writes=("items", "interactions", "rejected_rows"),
        settings=ingest_settings,
        skips=False,
        holds=Holds(item=1200, event=500),  # of the tables in force: nothing is known of sources that are read for the first time
        group="catalog",
        kinds=frozenset({"polars", "deltalake"}),
    ),
    Step(
        name="embed_text",
        run=embed_text,
        reads=("items",),
        writes=("text_embeddings",),
        settings=lambda ctx: ctx.recipe.encoders.text,
        group="embeddings",
        kinds=frozenset({"torch", "huggingface", "deltalake"}),
        pool="gpu",
    ),
    Step(
        name="embed_image",
        run=embed_image,
        reads=("items", "rejected_rows"),
        writes=("image_embeddings",),
        adds_to=("rejected_rows",),
        settings=lambda ctx: ctx.recipe.encoders.image,
        group="embeddings",
        kinds=frozenset({"pillow", "deltalake"}),
        pool="gpu",
    ),
    Step(
        name="embed_precomputed",
        run=embed_precomputed,
        reads=("items",),
        writes=("precomputed_embeddings",),
        settings=lambda ctx: ctx.recipe.encoders.precomputed,
        skips=False,
        holds=Holds(item=500, value=8),
        group="embeddings",
        kinds=frozenset({"parquet", "deltalake"}),
    ),
    Step(
        name="embed_behaviour",
        run=embed_behaviour,
        reads=("items", "interactions"),
        writes=("behaviour_embeddings",),
        settings=lambda ctx: [ctx.recipe.encoders.behaviour, ctx.recipe.split],
        jobs=_RETRAIN,
        group="embeddings",
        kinds=frozenset({"scipy", "deltalake"}),
    ),
    Step(
        name="fit_fusion",
        run=fit_fusion,
        reads=("items", *VECTORS, "interactions"),
        writes=("fusion",),
        holds=Holds(item=200, value=20),
        reads_if={"interactions": lambda recipe: recipe.encoders.fuse.kind in PAIR_KINDS},
        settings=lambda ctx: [
            ctx.recipe.encoders.fusion_config(),
            ctx.recipe.split if ctx.recipe.encoders.fuse.kind in PAIR_KINDS else None,
        ],
        jobs=_RETRAIN,
        group="embeddings",
        kinds=frozenset({"numpy", "safetensors"}),
    ),
    Step(
        name="fuse",
        run=fuse,
        reads=("items", *VECTORS, "fusion"),
        writes=("fused_embeddings",),
        holds=Holds(item=200, value=20),
        group="embeddings",
        kinds=frozenset({"numpy", "deltalake"}),
    ),
    Step(
        name="fit",
        run=fit_codebooks,
        reads=("items", "fused_embeddings", "interactions", "behaviour_embeddings"),
        writes=("codebooks",),
        holds=Holds(item=300, value=16),
        reads_if={"interactions": _fit_needs_events, "behaviour_embeddings": _fit_needs_events},
        settings=lambda ctx: [
            ctx.recipe.tokenizer,
            ctx.recipe.split if _fit_needs_events(ctx.recipe) else None,
            digest_of_given(ctx.given),
        ],
        jobs=_RETRAIN,
        group="semantic_ids",
        kinds=frozenset({"torch", "deltalake"}),
        pool="gpu",
    ),
    Step(
        name="assign",
        run=assign,
        reads=("items", "fused_embeddings", "codebooks"),
        writes=("semantic_ids", "retired_sids"),
        holds=Holds(item=900, value=14),
        settings=lambda ctx: [ctx.recipe.tokenizer.uniqueness, ctx.recipe.retirement],
        group="semantic_ids",
        kinds=frozenset({"torch", "deltalake"}),
    ),
    Step(
        name="sequences",
        run=build_sequences,
        reads=("interactions", "semantic_ids"),
        writes=("user_sequences",),
        holds=Holds(item=200, event=250),
        settings=lambda ctx: ctx.recipe.split,
        group="features",
        kinds=frozenset({"polars", "deltalake"}),
    ),
    Step(
        name="trie",
        run=build_sid_trie,
        reads=("semantic_ids",),
        writes=("sid_trie",),
        holds=Holds(item=200),
        group="features",
        kinds=frozenset({"numpy", "deltalake"}),
    ),
    Step(
        name="check",
        run=check_quality,
        reads=("items", "interactions", "rejected_rows", "fused_embeddings", "codebooks", "semantic_ids"),
        writes=("sid_quality",),
        reads_if={"interactions": _has_events},
        settings=lambda ctx: [gates_in_force(ctx.recipe.gates), ctx.recipe.split, ctx.recipe.quality, sorted(READINGS)],
        holds=Holds(item=300, value=16, event=80, block=BLOCK_BYTES),
        group="quality",
        kinds=frozenset({"numpy", "deltalake"}),
    ),
    Step(
        name="release",
        run=_publish,
        reads=RELEASED,
        writes=("release",),
        reads_if={"interactions": _has_events, "user_sequences": _has_events},
        skips=False,
        group="release",
        kinds=frozenset({"duckdb", "deltalake"}),
    ),
    Step(
        name="train",
        run=train_recommender,
        reads=("release",),
        writes=("recommender",),
        jobs=_RETRAIN,
        skips=False,
        after_release=True,
        group="training",
        kinds=frozenset({"torch", "deltalake"}),
        pool="gpu",
    ),
    Step(
        name="report",
        run=write_quality_report,
        reads=("release",),
        writes=("quality_report",),
        skips=False,
        after_release=True,
        group="quality",
        kinds=frozenset({"matplotlib", "html"}),
    ),
)

STEPS: dict[str, Step] = {step.name: step for step in _ALL}
"""Every step by name, in the order in which they run: a step reads only what steps before it write."""

JOBS: dict[Job, str] = {
    "refresh": "Ingest, embed what changed, assign SIDs to what is new, check, release. Published SIDs stay where they are.",
    "retrain": "Everything: a new generation where items or vectors have changed, a release, and a recommender trained on it.",
}
"""The jobs, with what each does."""


def steps_of(job: Job) -> list[Step]:
    """Return the steps of a job, in order."""
    return [step for step in STEPS.values() if job in step.jobs]


def refuse_stale(ctx: RunContext) -> None:
    """Raise `StaleStepError` with the names of steps whose results are not of the inputs and settings that the run has in force.

    A run of selected steps could otherwise publish, say, new SIDs with the sequences and verdicts of old ones. What `retrain` alone
    learns is not held against a refresh: a generation keeps what it was fitted with.
    """
    made = [step for step in steps_of(ctx.job) if step.name != "release" and not step.after_release and step.outputs(ctx.recipe)]
    stale = [step.name for step in made if ctx.state.steps.get(step.name) != digest(step, ctx)]
    if stale:
        msg = (
            f"stale: {', '.join(stale)}. What they read, or their settings, changed after they ran, or they never ran, so nothing "
            "was published; run these steps as well, or the whole job"
        )
        raise StaleStepError(msg, steps=stale)


def run_job(ctx: RunContext, *, without: Collection[str] = ()) -> list[StepReport]:
    """Run the steps of `ctx.job`, those named in `without` left out, and return their reports.

    The writer lock is held until the release is out: whatever reads the release then (trainer, page) keeps nobody from writing.
    Raises the first step's error; what the run wrote until then is in no release, and its staging folder and state are removed. A
    refresh where no `retrain` was published raises `NotFoundError` before it reads anything, and one whose recipe changes what only
    a retrain may change raises `RetrainNeeded`; any run after a rollback raises `HoldError`.
    """
    if ctx.job == "refresh":
        _ = ctx.generation
        refuse_changed_generation(ctx)
    ctx.refuse_held()
    steps = [step for step in steps_of(ctx.job) if step.name not in without]
    reports = []
    try:
        with ctx.warehouse.writing(ctx.run_id):
            reports += [_timed(ctx, step) for step in steps if not step.after_release]
        reports += [_timed(ctx, step) for step in steps if step.after_release]
    finally:
        ctx.warehouse.discard_staging(ctx.run_id)
        forget_state(ctx.warehouse, ctx.run_id)
    return reports


def _timed(ctx: RunContext, step: Step) -> StepReport:
    start = time.perf_counter()
    with ctx.progress.running(step.name):
        report = run_step(ctx, step)
    ctx.progress.say(describe(report, time.perf_counter() - start))
    return report


def describe(report: StepReport, seconds: float) -> str:
    """Return one line about a step for a person.

    >>> describe(StepReport(step="assign", rows={"semantic_ids": 12}), 0.31)
    'assign            0.3 s  semantic_ids 12 rows'
    """
    rows = ", ".join(f"{table} {count:,} rows" for table, count in report.rows.items())
    details = ", ".join(f"{name} {value}" for name, value in report.details.items())
    what = "nothing to do" if report.skipped else "; ".join(part for part in (rows, details) if part)
    return f"{report.step:<15}{seconds:>6.1f} s  {what}"
