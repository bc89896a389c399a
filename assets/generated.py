"""One asset per product, made from the table of steps: keys, deps, groups, kinds, pools and descriptions stand there alone.

A step that writes several products is one computation with several assets. What an asset shows of its work is `shown`'s.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import dagster as dg

from sidlake.assets.failures import IO_RETRIES
from sidlake.assets.ownership import CODE_VERSION, OWNERS
from sidlake.assets.resources import SidlakeResource
from sidlake.assets.settings import Settings
from sidlake.assets.shown import result_of
from sidlake.pipelines.products import PRODUCTS
from sidlake.pipelines.run import Step
from sidlake.pipelines.steps import STEPS

__all__ = ["asset_of", "assets_for"]

_LATE = timedelta(hours=36), timedelta(hours=60)  # a daily product: a warning after a missed night, a failure after two


def assets_for(settings: Settings) -> list[dg.AssetsDefinition]:
    """Return the assets of a catalogue, in the order of the steps."""
    return [asset_of(step, settings) for step in STEPS.values()]


def asset_of(step: Step, settings: Settings) -> dg.AssetsDefinition:
    """Return what makes the products of `step`."""
    (only, *others) = step.writes
    decorate = dg.multi_asset(
        specs=[_spec(step, name, settings) for name in step.writes],
        name=settings.named(step.name if others else only),
        required_resource_keys={settings.resource},
        pool=step.pool,
        retry_policy=IO_RETRIES,
    )
    return decorate(_compute(step, settings))


def _spec(step: Step, name: str, settings: Settings) -> dg.AssetSpec:
    daily = "refresh" in step.jobs
    return dg.AssetSpec(
        settings.key(name),
        deps=[settings.key(read) for read in step.reads],
        description=PRODUCTS[name].about,
        group_name=settings.named(step.group),
        owners=OWNERS,
        kinds=set(step.kinds),
        code_version=CODE_VERSION,
        freshness_policy=dg.FreshnessPolicy.time_window(warn_window=_LATE[0], fail_window=_LATE[1]) if daily else None,
        automation_condition=_automation(step, settings) if daily else None,
    )


def _automation(step: Step, settings: Settings) -> dg.AutomationCondition[Any]:
    """Return when the automation sensor, where it is switched on instead of the schedule, asks for a product of a refresh."""
    return dg.AutomationCondition.eager() if step.reads else dg.AutomationCondition.on_cron(settings.refresh_cron)


def _compute(step: Step, settings: Settings) -> Callable[[dg.AssetExecutionContext], Iterator[dg.MaterializeResult[Any]]]:
    def compute(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        sidlake: SidlakeResource = getattr(context.resources, settings.resource)
        ctx, report, seconds = sidlake.run_step(context, step)
        for name in step.writes:
            yield result_of(name, settings.key(name), ctx, report, seconds)

    return compute
