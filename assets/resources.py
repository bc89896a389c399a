"""Where the pipeline's assets work: one warehouse, one recipe, one engine.

A run of assets is a run of the pipeline: all its steps share one `RunContext` state and the writer lock, which the first step takes
and the release gives back; where each step is a process, each takes it in turn. A re-execution of some steps continues the run it
repeats: the state goes by the id of the run that began with all steps. An asset that is materialised alone builds on the current
release, and nothing it writes is visible to readers before the release asset has published it.
"""

import time
from contextlib import ExitStack

import dagster as dg
from pydantic import Field, PrivateAttr
from rich.console import Console

from sidlake.assets.failures import failing_fast
from sidlake.errors import RecipeError
from sidlake.memory import parse_size
from sidlake.pipelines.engines import Engine, LocalEngine
from sidlake.pipelines.generation import refuse_changed_generation
from sidlake.pipelines.progress import Progress
from sidlake.pipelines.recipe import Recipe, load_recipe
from sidlake.pipelines.run import Job, RunContext, Step, StepReport, run_step
from sidlake.pipelines.steps import JOBS, describe
from sidlake.warehouse.holds import hold_by
from sidlake.warehouse.releases import current
from sidlake.warehouse.tables import Warehouse

__all__ = ["HOLD_TAG", "JOB_TAG", "OVERRIDE_TAG", "REASON_TAG", "WAREHOUSE_TAG", "SidlakeResource"]

JOB_TAG = "sidlake/job"
"""Run tag that says which job a run belongs to: refresh or retrain."""

OVERRIDE_TAG = "sidlake/override"
"""Run tag that says why gates that refuse shall not stop the run; the reason becomes part of the release."""

HOLD_TAG = "sidlake/despite-hold"
"""Run tag that says why the run shall publish after a rollback, which holds runs; the reason becomes part of the release."""

REASON_TAG = "sidlake/reason"
"""Run tag that says why the run was asked for, as the drift sensor does; it becomes part of the release's reason."""

WAREHOUSE_TAG = "sidlake/warehouse"
"""Run tag that says which warehouse a job writes to; the instance runs one job per warehouse at a time (`dagster.yaml`)."""

_Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext


class SidlakeResource(dg.ConfigurableResource[None]):
    """Opens the warehouse and runs steps in it for the assets of one run."""

    warehouse: str = Field(description="Folder of the warehouse; made if absent.")
    recipe: str = Field(description="TOML file of the recipe.")
    engine: str = Field(default="local", description="local, or beam for Beam's FnApiRunner.")
    memory: str = Field(
        default="", description="Memory that a run may take, such as 4GiB; the recipe's or half of the machine's if empty."
    )
    console: bool = Field(default=False, description="Print step lines and progress bars on stderr instead of the run's log.")

    _held: ExitStack = PrivateAttr(default_factory=ExitStack)
    _locked: bool = PrivateAttr(default=False)
    _loaded: Recipe | None = PrivateAttr(default=None)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Release the writer lock at the end of the run."""
        self._unlock()
        self._loaded = None

    def open_warehouse(self) -> Warehouse:
        """Return the warehouse; `StorageError` where it cannot be made or opened."""
        return Warehouse.create_or_open(self.warehouse)

    def held(self) -> str | None:
        """Return in words why runs publish nothing after a rollback; None where they may."""
        warehouse = self.open_warehouse()
        hold = hold_by(warehouse, current(warehouse))
        return f'{hold.spelled()}; lift it with: sidlake resume --reason "…"' if hold else None

    def load_recipe(self) -> Recipe:
        """Return the recipe, read once: a file that is edited during a run changes the next run."""
        if self._loaded is None:
            self._loaded = load_recipe(self.recipe)
        return self._loaded

    def open_run(self, context: _Context) -> RunContext:
        """Return the pipeline run that this Dagster run is, or continues.

        A re-execution of some steps goes on with what the run before it did, wherever that ran, and `RunStateError` says where the
        warehouse knows nothing of it. A re-execution of all steps is a run of its own.
        """
        return RunContext.open(
            self.open_warehouse(),
            self.load_recipe(),
            run_id=_run_id(context),
            going_on=_goes_on(context.run, context),
            job=_job_of(context),
            engine=self._engine(),
            progress=Progress(Console(stderr=True, soft_wrap=True)) if self.console else Progress(log=context.log.info),
            override=context.run.tags.get(OVERRIDE_TAG),
            despite_hold=context.run.tags.get(HOLD_TAG),
            reason=context.run.tags.get(REASON_TAG),
            memory=self.memory_limit(),
        )

    def memory_limit(self) -> int | None:
        """Return the bytes that `memory` says; None where it says nothing, ValueError for what is no size."""
        return parse_size(self.memory) if self.memory else None

    def run_step(self, context: dg.AssetExecutionContext, step: Step) -> tuple[RunContext, StepReport, float]:
        """Run `step` under the writer lock and return the run, the step's report and its seconds.

        Raises `dagster.Failure`, which is not retried, for bad data; `StorageError` and `WarehouseBusy` as they are.
        """
        with failing_fast():
            if not step.after_release:
                self._lock(context)  # before the state is read: a step of the run in another process may be writing it
            ctx = self.open_run(context)
            if not step.after_release:
                refuse_changed_generation(ctx)
            if JOB_TAG in context.run.tags:  # a whole job would end in a release; a selection builds on the current one
                ctx.refuse_held()
            start = time.perf_counter()
            report = run_step(ctx, step)
            if step.name == "release":  # whoever reads the release then keeps nobody from writing
                self._unlock()
            seconds = time.perf_counter() - start
        line = describe(report, seconds)
        context.log.info(line)
        if self.console:
            ctx.progress.say(line)
        return ctx, report, seconds

    def _lock(self, context: _Context) -> None:
        if not self._locked:
            self._held.enter_context(self.open_warehouse().writing(_run_id(context), wait_for_own=True))
            self._locked = True

    def _unlock(self) -> None:
        self._held.close()
        self._locked = False

    def _engine(self) -> Engine:
        if self.engine == "local":
            return LocalEngine()
        if self.engine != "beam":
            msg = f"unknown engine {self.engine!r}; the engines are local and beam"
            raise RecipeError(msg, engine=self.engine)
        from sidlake.pipelines.beam import BeamEngine  # Beam takes seconds to import and is an extra

        return BeamEngine()


def _goes_on(run: dg.DagsterRun, context: _Context) -> bool:
    """Return whether `run` re-executes some steps of another, not all."""
    all_steps = {node.name for node in context.job_def.nodes}
    return run.parent_run_id is not None and run.step_keys_to_execute is not None and set(run.step_keys_to_execute) < all_steps


def _run_id(context: _Context) -> str:
    """Return the run whose state this run has: its own, or that of the nearest before it which executed all steps.

    Dagster's root of the chain may be an older one, of which a run of all steps has nothing.
    """
    run = context.run
    while _goes_on(run, context):
        parent = context.instance.get_run_by_id(str(run.parent_run_id))
        if parent is None:  # Dagster has forgotten it; what it left in the warehouse goes by its id
            return str(run.parent_run_id)
        run = parent
    return run.run_id


def _job_of(context: _Context) -> Job:
    """Return the job by the run's tag; without one, a run that includes the codebooks is a retrain."""
    tag = context.run.tags.get(JOB_TAG)
    if tag is None:
        selected = context.job_def.asset_layer.selected_asset_keys
        return "retrain" if any(key.path[-1] == "codebooks" for key in selected) else "refresh"
    for job in JOBS:
        if tag == job:
            return job
    msg = f"run tag {JOB_TAG} must be refresh or retrain, got {tag!r}"
    raise RecipeError(msg, tag=tag)
