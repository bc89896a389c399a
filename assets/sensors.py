"""The sensor on source files: a file that is new or has changed asks for a refresh.

It goes by size and time of modification, which cost nothing to read; whether the content differs is for the ingest step to find
out by its digest, and a refresh of unchanged content publishes nothing. A file that is still being copied may cost a run that fails
and publishes nothing; when it is complete its time has changed, and the refresh is asked for again.
"""

import json

import dagster as dg

from sidlake.assets.jobs import refresh
from sidlake.assets.resources import Settings, SidlakeResource
from sidlake.pipelines.recipe import Recipe, digest_of, load_recipe
from sidlake.warehouse.releases import current

__all__ = ["source_sensor_for"]

_EVERY_SECONDS = 60


def source_sensor_for(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor; like the schedules it is off until asked for."""
    status = dg.DefaultSensorStatus.RUNNING if settings.schedules == "on" else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(name="new_source_files", job=refresh, minimum_interval_seconds=_EVERY_SECONDS, default_status=status)
    def new_source_files(context: dg.SensorEvaluationContext, sidlake: SidlakeResource) -> dg.SensorResult | dg.SkipReason:
        """Ask for a refresh when a source file of the recipe is new or has changed."""
        recipe = load_recipe(sidlake.recipe)
        missing = [name for name in recipe.sources if not recipe.source_path(name).is_file()]
        if missing:
            return dg.SkipReason(f"no file for source {', '.join(missing)}: {recipe.source_path(missing[0])}")
        if current(sidlake.open_warehouse()) is None:
            return dg.SkipReason("nothing has been released yet; run the retrain job first")
        seen = _fingerprint(recipe)
        if seen == context.cursor:
            return dg.SkipReason("no source file has changed")
        # The key holds the files' state: the daemon starts one run per state, even if it dies before it saves the cursor.
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=digest_of(seen))], cursor=seen)

    return new_source_files


def _fingerprint(recipe: Recipe) -> str:
    states = {name: recipe.source_path(name).stat() for name in recipe.sources}
    return json.dumps({name: [state.st_size, state.st_mtime_ns] for name, state in sorted(states.items())})
