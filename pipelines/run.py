"""One run of the pipeline: what it reads (a release), what it has written so far, and what the release step will publish.

A run starts from the current release and collects, step by step, what the next release will name (`RunState`, kept in the
warehouse). A *step* says what it reads, what it writes and on which settings its result depends; from that comes its digest, and a
step whose digest is that of the base release is skipped, with its old result in force. The steps themselves stand in `steps`.
Nothing a run writes is visible to readers before the release step has published it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

import pyarrow as pa

from sidlake.errors import NotFoundError, RunStateError
from sidlake.memory import FLOOR, refuse_too_small
from sidlake.pipelines.engines import Engine, LocalEngine
from sidlake.pipelines.products import PRODUCTS, stamp
from sidlake.pipelines.progress import Progress
from sidlake.pipelines.recipe import Recipe, digest_of
from sidlake.pipelines.run_state import RunState, load_state, save_state
from sidlake.quality.assignment import Assignment
from sidlake.warehouse.holds import refuse_held
from sidlake.warehouse.places.storage import disk_errors
from sidlake.warehouse.releases import Release, after, current, get
from sidlake.warehouse.tables import Warehouse

__all__ = ["STEP_VERSION", "Holds", "Job", "RunContext", "Step", "StepReport", "digest", "new_run_id", "run_step"]

Job = Literal["refresh", "retrain"]

STEP_VERSION = 2
"""Part of every step's digest: raise it when a step's code changes what it writes, and the next run does the step again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What one step did: rows written per table, whether it was skipped because its inputs are unchanged, figures to show."""

    step: str
    skipped: bool = False
    rows: dict[str, int] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Holds:
    """What a step holds at its peak beside the program itself (`memory.FLOOR`); nothing where it streams.

    Attributes:
        item: bytes per item of the catalogue.
        value: bytes per item and dimension of the fused vector.
        event: bytes per event.
        block: bytes of a block of scores, 16 of each pair of items until so many.
    """

    item: int = 0
    value: int = 0
    event: int = 0
    block: int = 0

    def refuse(self, ctx: RunContext, step: str) -> None:
        """Raise `MemoryTooSmall` where `step` would hold more than the limit; sizes are those of the tables in force."""
        items, events = (ctx.warehouse.num_rows(name, ctx.tables[name]) if name in ctx.tables else 0 for name in _COUNTED)
        dim = sum(modality.dim for modality in ctx.recipe.encoders.fusion.values())
        needed = FLOOR + items * (self.item + self.value * dim) + events * self.event + min(self.block, 16 * items**2)
        refuse_too_small(ctx.warehouse.memory, needed, step=step, why=f"{items:,} items of {dim} dimensions, {events:,} events")


_COUNTED = ("items", "interactions")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of a job, declared once: order, skipping, the freshness guard and Dagster's graph all come from this.

    Attributes:
        name: what progress lines and digests call it.
        run: does the work and reports it.
        reads, writes: names of `products.PRODUCTS`; each is written by one step.
        adds_to: of `reads`, those to which it adds rows, the same ones however often it runs.
        reads_if: of `reads`, those that are read only where the recipe says so; a graph shows them always.
        settings: what else the result depends on, as dataclasses and JSON values.
        jobs: the jobs it is part of; a step of ``retrain`` alone learns, and a refresh keeps what it has learned.
        skips: whether an unchanged digest makes it unnecessary; steps that look at files of their own decide by themselves.
        holds: what it holds in memory; a limit below that refuses it before it starts.
        after_release: it reads the published release, so it runs when the writer lock is free again.
        group, kinds, pool: how Dagster shows and limits it.
    """

    name: str
    run: Callable[[RunContext], StepReport]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    adds_to: tuple[str, ...] = ()
    reads_if: Mapping[str, Callable[[Recipe], bool]] = field(default_factory=dict)
    settings: Callable[[RunContext], object] = lambda ctx: None
    jobs: frozenset[Job] = frozenset({"refresh", "retrain"})
    skips: bool = True
    holds: Holds = field(default_factory=Holds)
    after_release: bool = False
    group: str = ""
    kinds: frozenset[str] = frozenset()
    pool: str | None = None

    def inputs(self, recipe: Recipe) -> list[str]:
        """Return the products that the step reads under `recipe`."""
        return [name for name in self.reads if name not in self.reads_if or self.reads_if[name](recipe)]

    def outputs(self, recipe: Recipe) -> list[str]:
        """Return the products that the step makes under `recipe`; none where the recipe leaves it out."""
        return [name for name in self.writes if PRODUCTS[name].made(recipe)]


@dataclass(kw_only=True)
class RunContext:
    """One run. Created by `RunContext.open`.

    Attributes:
        base: the release that was current when the run started; None before the first.
        state: what the run has in force; `save` writes it, and every step's end does.
        override: why gates that refuse shall not stop this run; never part of the saved state, so that a run that is taken up
            again says it again.
        despite_hold: why this run shall publish after a rollback, which holds runs; not saved either.
        reason: why the run was asked for, where there is more to say than its job; not saved either.
        given: SIDs that somebody else made, for a generation of their own; not saved.
        reread: whether sources and tables are read though nothing tells that they are others than they were; not saved.
        step: the step that is running.
    """

    warehouse: Warehouse
    recipe: Recipe
    run_id: str
    job: Job
    engine: Engine
    progress: Progress
    base: Release | None
    state: RunState
    override: str | None = None
    despite_hold: str | None = None
    reason: str | None = None
    given: Assignment | None = None
    reread: bool = False
    step: Step | None = None

    @classmethod
    def open(
        cls,
        warehouse: Warehouse,
        recipe: Recipe,
        *,
        run_id: str,
        job: Job,
        engine: Engine | None = None,
        progress: Progress | None = None,
        override: str | None = None,
        despite_hold: str | None = None,
        reason: str | None = None,
        given: Assignment | None = None,
        memory: int | None = None,
        reread: bool = False,
        going_on: bool = False,
    ) -> RunContext:
        """Return the run `run_id`, as far as it came; a new run starts from the current release.

        A run that is taken up again keeps the release it started from, so that publishing over a newer one is refused. With
        `going_on` the caller counts on what the run has done, and `RunStateError` says where the warehouse knows nothing of it.
        From here on `memory`, or what the recipe says, is the limit of `warehouse`.
        """
        warehouse.memory = memory or recipe.memory_limit or warehouse.memory
        state = load_state(warehouse, run_id)
        if state is None and going_on:
            msg = f"run {run_id} cannot go on: {warehouse.url} has nothing of it; re-execute all its steps, or start a new run"
            raise RunStateError(msg, run_id=run_id)
        base = current(warehouse) if state is None else get(warehouse, state.base) if state.base else None
        return cls(
            warehouse=warehouse,
            recipe=recipe,
            run_id=run_id,
            job=job,
            engine=engine or LocalEngine(),
            progress=progress or Progress(),
            base=base,
            state=state or RunState.of(base, after(base)),
            override=override,
            despite_hold=despite_hold,
            reason=reason,
            given=given,
            reread=reread,
        )

    def refuse_held(self) -> None:
        """Raise `HoldError` where a rollback holds runs and this one was not told why it shall publish."""
        if not self.despite_hold:
            refuse_held(self.warehouse, current(self.warehouse))

    @property
    def tables(self) -> dict[str, int]:
        """The version of each table that the run has in force."""
        return self.state.tables

    @property
    def now(self) -> datetime:
        """When the run began."""
        return self.state.now

    @property
    def generation(self) -> str:
        """The generation in force; `NotFoundError` before the first `retrain`."""
        if self.state.generation is None:
            msg = "this warehouse has no codebooks yet; run the retrain job first: sidlake run retrain"
            raise NotFoundError(msg)
        return self.state.generation

    @property
    def codebook_hash(self) -> str:
        """The hash of the codebooks in force; `NotFoundError` before the first `retrain`."""
        _ = self.generation
        return str(self.state.codebook_hash)

    @cached_property
    def base_state(self) -> RunState:
        """What the base release has in force."""
        return RunState.of(self.base, self.now)

    def artifact(self, name: str) -> Path:
        """Return the path of the generation's artifact `name` (codebook.safetensors, learned_events.parquet)."""
        return self.warehouse.fetched(self.warehouse.artifacts_dir / self.generation / name, self.codebook_hash)

    def encoder(self, modality: str) -> str:
        """Return the id of the modality's encoder in force; `NotFoundError` names the step that brings one."""
        if modality not in self.state.encoders:
            msg = f"no vectors of {modality} are in force; run the embedding steps first (sidlake run retrain)"
            raise NotFoundError(msg, modality=modality)
        return self.state.encoders[modality]

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Return the version of `table` that this run has in force; `NotFoundError` names the step that makes it."""
        if table not in self.tables:
            msg = f"table {table} has no version in this run; run the steps before this one first (sidlake run retrain)"
            raise NotFoundError(msg, table=table)
        return self.warehouse.read(table, version=self.tables[table], columns=columns)

    def write(self, table: str, data: pa.Table, *, num_levels: int | None = None) -> None:
        """Replace `table` by `data` in a new version, which this run has in force from now on."""
        self.tables[table] = self.warehouse.overwrite(table, data, run_id=self.run_id, num_levels=num_levels)

    def append(self, table: str, data: pa.Table, *, num_levels: int | None = None) -> None:
        """Add `data` to the version of `table` that this run has in force; what others have written since is set aside first."""
        base = self.tables[table]
        self.tables[table] = self.warehouse.extend(table, base, data, run_id=self.run_id, num_levels=num_levels)

    def made_alike(self) -> bool:
        """Return whether the base release's result of the running step was made with today's settings, of the base's inputs."""
        step = self.step
        return step is not None and self.base_state.steps.get(step.name) == digest(step, self, self.base_state)

    def save(self) -> None:
        """Write the run's state to the warehouse."""
        save_state(self.warehouse, self.run_id, self.state)


def digest(step: Step, ctx: RunContext, state: RunState | None = None) -> str:
    """Return what identifies the result of `step` under the recipe, on what `state` has in force (by default the run's).

    Equal versions of the input tables mean equal content, so the digest covers versions, encoders, settings and `STEP_VERSION`.
    """
    read = {name: stamp(name, state or ctx.state, ctx.recipe) for name in step.inputs(ctx.recipe)}
    return digest_of(STEP_VERSION, step.name, read, step.settings(ctx))


def run_step(ctx: RunContext, step: Step) -> StepReport:
    """Return what one step reports, skipped where the recipe leaves it out, the job keeps its result, or nothing has changed.

    A full disk or a missing permission is a `StorageError` wherever it strikes. The state is saved at the end, not in between: a
    step that died is done again from the base release's tables.
    """
    with disk_errors(ctx.warehouse.root):
        if not ctx.state.done:
            ctx.save()  # from here on the warehouse knows of the run, also where its first step fails
        for name in set(step.writes) - set(step.outputs(ctx.recipe)):
            PRODUCTS[name].drop(ctx.state)
        if (step.writes and not step.outputs(ctx.recipe)) or ctx.job not in step.jobs:
            report = StepReport(step=step.name, skipped=True)
        elif step.skips and _has_result(ctx, step):
            report = StepReport(step=step.name, skipped=True)
            ctx.state.steps[step.name] = digest(step, ctx)
        else:
            report = _run(ctx, step)
        ctx.state.done = sorted({*ctx.state.done, step.name})
        if not step.after_release:
            ctx.save()
    return report


def _has_result(ctx: RunContext, step: Step) -> bool:
    """Return whether the base release has the step's result, and put it in force again where an earlier attempt wrote another."""
    base = ctx.base_state
    outputs = [PRODUCTS[name] for name in step.outputs(ctx.recipe)]
    if base.steps.get(step.name) != digest(step, ctx) or not all(product.is_in(base) for product in outputs):
        return False
    for product in outputs:
        product.carry_over(base, ctx.state)
    return True


def _run(ctx: RunContext, step: Step) -> StepReport:
    for name in step.outputs(ctx.recipe):
        PRODUCTS[name].carry_over(ctx.base_state, ctx.state)  # what a first attempt wrote is set aside
    step.holds.refuse(ctx, step.name)
    ctx.step = step
    try:
        report = step.run(ctx)
    finally:
        ctx.step = None
    ctx.state.steps[step.name] = digest(step, ctx)
    return report


def new_run_id(now: datetime | None = None) -> str:
    """Return a run id that sorts by time, such as ``20261120T231500-482913``."""
    return (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S-%f")
