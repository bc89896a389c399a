"""The jobs: `refresh` brings in what is new, `retrain` also learns a new generation and trains the recommender, `compare` chooses.

A job's tag tells the steps which of the two they are part of; runs started from the asset graph carry none (see `resources`).
Both run the same assets: in a refresh those that only a retrain learns anew say that they kept what there is, so that nothing
looks stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from sidlake.assets.resources import JOB_TAG, WAREHOUSE_TAG
from sidlake.assets.settings import Settings
from sidlake.pipelines.steps import JOBS, STEPS

if TYPE_CHECKING:  # what `define_asset_job` returns has no public name
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

__all__ = ["Jobs", "executor_of", "jobs_for"]


@dataclass(frozen=True, slots=True)
class Jobs:
    """The jobs of a catalogue."""

    refresh: UnresolvedAssetJobDefinition
    retrain: UnresolvedAssetJobDefinition
    compare: UnresolvedAssetJobDefinition


def jobs_for(settings: Settings) -> Jobs:
    """Return the jobs of a catalogue; one of them at a time writes to its warehouse."""
    published = dg.AssetSelection.assets(*(settings.key(name) for step in STEPS.values() for name in step.writes))
    refresh, retrain = (
        dg.define_asset_job(
            settings.named(job),
            selection=published,
            description=about,
            tags={JOB_TAG: job, WAREHOUSE_TAG: settings.tag},
            executor_def=executor_of(settings),
        )
        for job, about in JOBS.items()
    )
    compare = dg.define_asset_job(
        settings.named("compare"),
        selection=dg.AssetSelection.groups(settings.named("comparison")),
        description="Semantic IDs by every method beside the recipe, measured on the same catalogue; publishes nothing.",
        executor_def=dg.in_process_executor,
    )
    return Jobs(refresh, retrain, compare)


def executor_of(settings: Settings) -> dg.ExecutorDefinition:
    """Return how a run's steps are spread.

    In one process the text model is loaded once and the writer lock is held for the whole run; with a process per step a step that
    needs a GPU holds its pool alone, and each takes the lock in turn. What else is worth spreading is inside the steps.
    """
    return dg.in_process_executor if settings.executor == "in_process" else dg.multiprocess_executor
