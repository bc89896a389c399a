"""All that Dagster loads: assets, checks, jobs, schedules, the sensors and the resource they share."""

import dagster as dg

from sidlake.assets.catalog import catalog, interactions_for
from sidlake.assets.checks import CHECKS
from sidlake.assets.comparison import comparisons_for
from sidlake.assets.embeddings import (
    behaviour_embeddings,
    fused_embeddings,
    fusion,
    image_embeddings,
    precomputed_embeddings,
    text_embeddings,
)
from sidlake.assets.features import sid_trie, user_sequences
from sidlake.assets.jobs import EXECUTOR, compare, refresh, retrain
from sidlake.assets.quality import sid_quality
from sidlake.assets.release import release
from sidlake.assets.report import quality_report
from sidlake.assets.resources import SidlakeResource, settings_from
from sidlake.assets.schedules import schedules_for
from sidlake.assets.semantic_ids import codebooks, semantic_ids
from sidlake.assets.sensors import drift_sensor_for, source_sensor_for
from sidlake.assets.training import recommender

__all__ = ["defs"]

_SETTINGS = settings_from()

defs = dg.Definitions(
    assets=[
        catalog,
        interactions_for(_SETTINGS),
        text_embeddings,
        image_embeddings,
        precomputed_embeddings,
        behaviour_embeddings,
        fusion,
        fused_embeddings,
        codebooks,
        semantic_ids,
        user_sequences,
        sid_trie,
        sid_quality,
        release,
        quality_report,
        recommender,
        *comparisons_for(_SETTINGS),
    ],
    asset_checks=CHECKS,
    jobs=[refresh, retrain, compare],
    schedules=schedules_for(_SETTINGS),
    sensors=[source_sensor_for(_SETTINGS), drift_sensor_for(_SETTINGS)],
    resources={"sidlake": SidlakeResource(warehouse=_SETTINGS.warehouse, recipe=_SETTINGS.recipe, engine=_SETTINGS.engine)},
    executor=EXECUTOR,  # also for runs started from the asset graph
)
