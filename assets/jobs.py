"""The jobs: `refresh` brings in what is new, `retrain` also learns a new generation and trains the recommender, `compare` chooses.

A job's tag tells the steps which of the two they are part of; runs started from the asset graph carry none (see `resources`).
"""

import dagster as dg

from sidlake.assets.resources import JOB_TAG

__all__ = ["EXECUTOR", "compare", "refresh", "retrain"]

# One process per run: the text model is loaded once for all steps, the writer lock belongs to one process for the whole run, and
# the run's state is one file that steps write in turn. What is worth spreading is inside the steps: cores, GPU, Beam.
EXECUTOR = dg.in_process_executor

_COMPARED = dg.AssetSelection.groups("comparison")
_LEARNED = dg.AssetSelection.assets("behaviour_embeddings", "fusion", "codebooks", "recommender")

refresh = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.all() - _LEARNED - _COMPARED,
    description="Ingest, embed what changed, assign SIDs to what is new, check, release. Published SIDs stay where they are.",
    tags={JOB_TAG: "refresh"},
    executor_def=EXECUTOR,
)

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.all() - _COMPARED,
    description="Everything: a new generation where items or vectors have changed, a release, and a recommender trained on it.",
    tags={JOB_TAG: "retrain"},
    executor_def=EXECUTOR,
)

compare = dg.define_asset_job(
    "compare",
    selection=_COMPARED,
    description="Semantic IDs by every method beside the recipe, measured on the same catalogue; publishes nothing.",
    executor_def=EXECUTOR,
)
