"""Run a job in this process and show it as the command line does: what `make demo` calls.

    python -m sidlake.assets.launch retrain

The run is Dagster's, kept in the instance of DAGSTER_HOME, so it is there when the UI opens. Dagster's own log lines stay in the
run; the terminal gets the steps' lines and bars, and one line for an error. Exit codes as in `sidlake`: 0 done, 1 refused or
failed, 2 bad usage.
"""

import os
import socket
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import dagster as dg
import typer
from rich.console import Console

from sidlake.assets.definitions import defs
from sidlake.assets.resources import OVERRIDE_TAG, SidlakeResource
from sidlake.assets.settings import dagster_home, settings_from
from sidlake.cli.output import print_error
from sidlake.cli.tour import print_tour
from sidlake.errors import NotFoundError, RecipeError, SidlakeError
from sidlake.pipelines.recipe import load_recipe
from sidlake.warehouse.tables import Warehouse

__all__ = ["launch", "main"]

_PROCESS_TAG = "sidlake/process"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_ALIVE = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


def launch(job: str, resource: SidlakeResource, instance: dg.DagsterInstance, *, override: str | None = None) -> list[str]:
    """Run `job` and return its errors, one line each; none when it succeeded. `override` lets refusing gates pass, and says why."""
    _close_dead_runs(instance)
    result = defs.resolve_job_def(job).execute_in_process(
        run_config=_QUIET,
        instance=instance,
        resources={"sidlake": resource},
        tags={_PROCESS_TAG: _process(os.getpid())} | ({OVERRIDE_TAG: override} if override else {}),
        raise_on_error=False,
    )
    return [] if result.success else _errors(result)


def _errors(result: dg.ExecuteInProcessResult) -> list[str]:
    """Return what broke, by the sidlake error's name or the check's."""
    lines = [
        f"{check.asset_key.to_user_string()} refused by check {check.check_name}: {check.description}"
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
    ]
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            cause = failure.error.cause if failure.error else None
            if failure.user_failure_data is not None:
                lines.append(failure.user_failure_data.description or "")
            elif cause is not None:
                lines.append(cause.message.strip())
    return lines or [f"run {result.run_id} failed; its log has the reason"]


def _close_dead_runs(instance: dg.DagsterInstance) -> None:
    """Mark runs as failed whose process was killed, since nothing else would: they would count as running for ever."""
    for run in instance.get_runs(dg.RunsFilter(statuses=_ALIVE)):
        host, _, pid = run.tags.get(_PROCESS_TAG, "").rpartition(":")
        if host == socket.gethostname() and not Path(f"/proc/{pid}").exists():
            instance.report_run_failed(run, f"the process of this run, {host}:{pid}, is gone")


def _process(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}"


def main(
    job: Annotated[str, typer.Argument(help="refresh or retrain.")],
    warehouse: Annotated[Path | None, typer.Option(help="Folder of the warehouse.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="TOML file of the recipe.")] = None,
    override: Annotated[str | None, typer.Option(help="Why gates that refuse shall not stop the release; it is recorded.")] = None,
) -> None:
    """Run a job in this process, recorded in the Dagster instance of DAGSTER_HOME, and print a tour of the result.

    Example: python -m sidlake.assets.launch retrain --recipe recipes/online_retail.toml
    """
    settings = settings_from()
    names = {"warehouse": str(warehouse or settings.warehouse), "recipe": str(recipe or settings.recipe)}
    if job not in ("refresh", "retrain"):
        _stop(f"unknown job {job!r}; the jobs are refresh and retrain", 2)
    try:
        home = dagster_home()
        load_recipe(names["recipe"])
        opened = Warehouse.create_or_open(names["warehouse"])
    except SidlakeError as error:
        _stop(f"{type(error).__name__}: {error}", 2 if isinstance(error, RecipeError | NotFoundError) else 1)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        errors = launch(
            job, SidlakeResource(**names, engine=settings.engine, memory=settings.memory, console=True), instance, override=override
        )
    if errors:
        _stop("\n  ".join(errors), 1)
    print_tour(opened, Console(soft_wrap=True))


def _stop(message: str, code: int) -> NoReturn:
    print_error(f"sidlake: {message}")
    sys.exit(code)


if __name__ == "__main__":
    typer.run(main)
