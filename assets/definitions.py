"""All that Dagster loads of a catalogue: assets, checks, jobs, schedules, the sensors and the resource they share.

`defs` is the catalogue that the environment names. Several in one instance, in a file of your own:

    from sidlake.assets.definitions import defs_for
    defs = dg.Definitions.merge(
        defs_for("recipes/shoes.toml", "s3://shop/shoes", "shoes"), defs_for("recipes/books.toml", "/srv/books", "books")
    )
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from sidlake.assets.checks import checks_for
from sidlake.assets.comparison import comparisons_for
from sidlake.assets.generated import assets_for
from sidlake.assets.jobs import executor_of, jobs_for
from sidlake.assets.maintenance import maintenance_for
from sidlake.assets.resources import SidlakeResource
from sidlake.assets.schedules import schedules_for
from sidlake.assets.sensors import drift_sensor_for, source_sensor_for
from sidlake.assets.settings import Settings, settings_from

__all__ = ["defs", "defs_for"]


def defs_for(recipe: str, warehouse: str, prefix: str = "", **settings: Any) -> dg.Definitions:  # noqa: ANN401  Settings' fields
    """Return the definitions of one catalogue; `prefix` tells several in one instance apart.

    `settings` are the other fields of `assets.settings.Settings`: executor, engine, schedules, refresh_cron, retrain_cron.
    """
    return _defs(Settings(recipe=str(recipe), warehouse=str(warehouse), prefix=prefix, **settings))


def _defs(settings: Settings) -> dg.Definitions:
    jobs, maintenance = jobs_for(settings), maintenance_for(settings)
    resource = SidlakeResource(warehouse=settings.warehouse, recipe=settings.recipe, engine=settings.engine, memory=settings.memory)
    return dg.Definitions(
        assets=[*assets_for(settings), *comparisons_for(settings)],
        asset_checks=checks_for(settings),
        jobs=[jobs.refresh, jobs.retrain, jobs.compare, maintenance],
        schedules=schedules_for(settings, jobs, maintenance),
        sensors=[source_sensor_for(settings, jobs), drift_sensor_for(settings, jobs)],
        resources={settings.resource: resource},
        executor=executor_of(settings) if not settings.prefix else None,  # also for runs started from the asset graph
    )


defs = _defs(settings_from())
