"""Where the pipeline's assets work: one warehouse, one recipe, one engine. The environment is read here and nowhere else.

A run of assets is a run of the pipeline: all its steps share one `RunContext` state, one recipe and the writer lock, which the
first step takes and the run's end releases. "Re-execute from failure" continues the run it repeats, because the state goes by the
id of the first attempt. An asset that is materialised alone builds on the current release, and nothing it writes is visible to
readers before the release asset has published it.
"""

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import dagster as dg
from pydantic import Field, PrivateAttr
from rich.console import Console

from sidlake.assets.failures import failing_fast
from sidlake.errors import NotFoundError, RecipeError
from sidlake.pipelines.engines import Engine, LocalEngine
from sidlake.pipelines.generation import refuse_changed_generation
from sidlake.pipelines.progress import Progress
from sidlake.pipelines.recipe import Recipe, load_recipe
from sidlake.pipelines.run import Job, RunContext, Step, StepReport, run_step
from sidlake.pipelines.steps import JOBS, describe
from sidlake.warehouse.holds import hold_by
from sidlake.warehouse.places.location import default_warehouse
from sidlake.warehouse.releases import current
from sidlake.warehouse.tables import Warehouse

__all__ = ["HOLD_TAG", "JOB_TAG", "OVERRIDE_TAG", "REASON_TAG", "Settings", "SidlakeResource", "dagster_home", "settings_from"]

JOB_TAG = "sidlake/job"
"""Run tag that says which job a run belongs to: refresh or retrain."""

OVERRIDE_TAG = "sidlake/override"
"""Run tag that says why gates that refuse shall not stop the run; the reason becomes part of the release."""

HOLD_TAG = "sidlake/despite-hold"
"""Run tag that says why the run shall publish after a rollback, which holds runs; the reason becomes part of the release."""

REASON_TAG = "sidlake/reason"
"""Run tag that says why the run was asked for, as the drift sensor does; it becomes part of the release's reason."""

_Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the environment decides: each field by the variable of its name, such as SIDLAKE_WAREHOUSE or SIDLAKE_REFRESH_CRON.

    Attributes:
        warehouse: folder; relative paths start at the working directory, as in the command line.
        refresh_cron: when the daily job runs, in UTC; `retrain_cron` likewise for the weekly one.
        schedules: ``on`` starts schedules and the sensor with the daemon. They are off unless asked for: opening the UI on a laptop
            must not make it retrain at three in the morning. A toggle in the UI wins over this default.
        first_day: day of the first partition of `interactions`, YYYY-MM-DD; earlier days are ingested, but not shown.
    """

    warehouse: str = field(default_factory=lambda: str(default_warehouse()))
    recipe: str = "recipes/online_retail.toml"
    engine: str = "local"
    schedules: str = "off"
    refresh_cron: str = "0 5 * * *"
    retrain_cron: str = "0 3 * * SUN"
    first_day: str = "2009-12-01"

    def __post_init__(self) -> None:
        if self.schedules not in ("on", "off"):
            msg = f"SIDLAKE_SCHEDULES must be on or off, got {self.schedules!r}"
            raise ValueError(msg)
        if self.engine not in ("local", "beam"):
            msg = f"SIDLAKE_ENGINE must be local or beam, got {self.engine!r}"
            raise ValueError(msg)
        try:
            date.fromisoformat(self.first_day)
        except ValueError as error:
            msg = f"SIDLAKE_FIRST_DAY must be a day such as 2009-12-01, got {self.first_day!r}"
            raise ValueError(msg) from error


def settings_from(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings that `environment` gives; relative paths start at the working directory.

    >>> settings_from({"SIDLAKE_WAREHOUSE": "/srv/shop"}).warehouse
    '/srv/shop'
    """
    names = {name: f"SIDLAKE_{name.upper()}" for name in Settings.__dataclass_fields__}
    return replace(Settings(), **{name: environment[key] for name, key in names.items() if environment.get(key)})


def dagster_home(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of Dagster's instance: DAGSTER_HOME, or ``dagster_home`` in the working directory.

    Raises `NotFoundError` where it has no dagster.yaml: Dagster would go on with its defaults, telemetry among them.
    """
    home = Path(environment.get("DAGSTER_HOME") or "dagster_home").absolute()
    if not (home / "dagster.yaml").is_file():
        msg = f"no dagster.yaml in {home}; run from the repository's root, or set DAGSTER_HOME to the absolute path of dagster_home"
        raise NotFoundError(msg, path=str(home))
    return home


class SidlakeResource(dg.ConfigurableResource[None]):
    """Opens the warehouse and runs steps in it for the assets of one run."""

    warehouse: str = Field(description="Folder of the warehouse; made if absent.")
    recipe: str = Field(description="TOML file of the recipe.")
    engine: str = Field(default="local", description="local, or beam for Beam's FnApiRunner.")
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
        run = context.run
        going_on = run.parent_run_id is not None and run.step_keys_to_execute is not None
        return RunContext.open(
            self.open_warehouse(),
            self.load_recipe(),
            run_id=(run.root_run_id or run.run_id) if going_on else run.run_id,
            going_on=going_on,
            job=_job_of(context),
            engine=self._engine(),
            progress=Progress(Console(stderr=True, soft_wrap=True)) if self.console else Progress(log=context.log.info),
            override=context.run.tags.get(OVERRIDE_TAG),
            despite_hold=context.run.tags.get(HOLD_TAG),
            reason=context.run.tags.get(REASON_TAG),
        )

    def run_step(self, context: dg.AssetExecutionContext, step: Step) -> tuple[RunContext, StepReport, float]:
        """Run `step` under the writer lock and return the run, the step's report and its seconds.

        Raises `dagster.Failure`, which is not retried, for bad data; `StorageError` and `WarehouseBusy` as they are.
        """
        with failing_fast():
            ctx = self.open_run(context)
            refuse_changed_generation(ctx)
            if JOB_TAG in context.run.tags:  # a whole job would end in a release; a selection builds on the current one
                ctx.refuse_held()
            if not step.after_release:
                self._lock(ctx)
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

    def _lock(self, ctx: RunContext) -> None:
        if not self._locked:
            self._held.enter_context(ctx.warehouse.writing(ctx.run_id))
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


def _job_of(context: _Context) -> Job:
    """Return the job by the run's tag; without one, a run that includes the codebooks is a retrain."""
    tag = context.run.tags.get(JOB_TAG)
    if tag is None:
        selected = context.job_def.asset_layer.selected_asset_keys
        return "retrain" if dg.AssetKey("codebooks") in selected else "refresh"
    for job in JOBS:
        if tag == job:
            return job
    msg = f"run tag {JOB_TAG} must be refresh or retrain, got {tag!r}"
    raise RecipeError(msg, tag=tag)
