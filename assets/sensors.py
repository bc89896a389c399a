"""The sensors: a source file that is new or has changed asks for a refresh, and a generation that has drifted for a retrain.

The first goes by size and time of modification, which cost nothing to read; whether the content differs is for the ingest step
to find out by its digest, and a refresh of unchanged content publishes nothing. A file that is still being copied may cost a
run that fails and publishes nothing; when it is complete its time has changed, and the refresh is asked for again. A refresh that
failed for another reason (a full disk, a store that could not be reached) is asked for again too, after pauses that double, so
that no file is forgotten.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from sidlake.assets.jobs import Jobs
from sidlake.assets.resources import REASON_TAG, SidlakeResource
from sidlake.assets.settings import Settings
from sidlake.errors import SourceError
from sidlake.pipelines.ingest.stores.fingerprint import fingerprint
from sidlake.pipelines.measuring.drift import drift_reasons
from sidlake.pipelines.recipe import load_recipe
from sidlake.warehouse.releases import current, history

__all__ = ["drift_sensor_for", "source_sensor_for"]

_EVERY_SECONDS = 60
_DRIFT_EVERY_SECONDS = 600
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=5), timedelta(days=1)


def source_sensor_for(settings: Settings, jobs: Jobs) -> dg.SensorDefinition:
    """Return the sensor; like the schedules it is off until asked for."""
    status = dg.DefaultSensorStatus.RUNNING if settings.starts() else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name=settings.named("new_source_files"),
        job=jobs.refresh,
        minimum_interval_seconds=_EVERY_SECONDS,
        default_status=status,
        required_resource_keys={settings.resource},
    )
    def new_source_files(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """Ask for a refresh when a source file of the recipe is new or has changed."""
        sidlake: SidlakeResource = getattr(context.resources, settings.resource)
        recipe = load_recipe(sidlake.recipe)
        try:
            seen = fingerprint(recipe)
        except SourceError as error:
            return dg.SkipReason(f"no file for a source: {error}")
        if current(sidlake.open_warehouse()) is None:
            return dg.SkipReason("nothing has been released yet; run the retrain job first")
        if held := sidlake.held():  # the cursor stays, so that the refresh is asked for when the hold is lifted
            return dg.SkipReason(held)
        asked, _, last = (context.cursor or "0:").partition(":")
        number = int(asked) if asked.isdecimal() else 0
        if seen == last and (why := _why_not_again(context, number, seen)):
            return dg.SkipReason(why)
        # The key counts the changes: files that are again as they were once ask again, and a daemon that dies before it saves the
        # cursor asks under the same key, for which one run is started.
        number += 1
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"{number}-{seen}")], cursor=f"{number}:{seen}")

    return new_source_files


def _why_not_again(context: dg.SensorEvaluationContext, number: int, seen: str) -> str | None:
    """Return why files that have not changed ask for nothing; None where their last refresh failed long enough ago."""
    failed = 0
    while (run := _run_of(context, f"{number - failed}-{seen}")) is not None and run.dagster_run.is_failure:
        failed += 1
    if not failed:
        return "no source file has changed"
    last = _run_of(context, f"{number}-{seen}")
    assert last is not None
    again = last.update_timestamp + min(_FIRST_PAUSE * 2 ** min(failed - 1, 20), _LONGEST_PAUSE)
    if datetime.now(UTC) >= again:
        return None
    run_id = last.dagster_run.run_id
    return f"the refresh of these files failed {failed} times (run {run_id}); asked for again from {again:%H:%M} UTC on"


def _run_of(context: dg.SensorEvaluationContext, key: str) -> dg.RunRecord | None:
    """Return the last run that this sensor asked for under a key."""
    tags = {"dagster/run_key": key, "dagster/sensor_name": context.sensor_name}
    return next(iter(context.instance.get_run_records(dg.RunsFilter(tags=tags), limit=1)), None)


def drift_sensor_for(settings: Settings, jobs: Jobs) -> dg.SensorDefinition:
    """Return the sensor that asks for a retrain, once per generation; off until asked for."""
    status = dg.DefaultSensorStatus.RUNNING if settings.starts() else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name=settings.named("drift"),
        job=jobs.retrain,
        minimum_interval_seconds=_DRIFT_EVERY_SECONDS,
        default_status=status,
        required_resource_keys={settings.resource},
    )
    def drift(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """Ask for a retrain when the metrics of the last release exceed a limit of the recipe's section drift."""
        sidlake: SidlakeResource = getattr(context.resources, settings.resource)
        warehouse = sidlake.open_warehouse()
        releases = history(warehouse)
        if not releases:
            return dg.SkipReason("nothing has been released yet; run the retrain job first")
        if held := sidlake.held():
            return dg.SkipReason(held)
        generation = releases[-1].generation
        reasons = drift_reasons(warehouse, releases, load_recipe(sidlake.recipe).drift)
        if not reasons:
            return dg.SkipReason(f"generation {generation} keeps the limits")
        if context.cursor == generation:
            return dg.SkipReason(f"a retrain was asked for already: {'; '.join(reasons)}")
        # One run per generation: where retraining cures nothing, asking again every day would only cost days.
        request = dg.RunRequest(run_key=f"drift of {generation}", tags={REASON_TAG: "; ".join(reasons)})
        return dg.SensorResult(run_requests=[request], cursor=generation)

    return drift
