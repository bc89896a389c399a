"""What the metrics of a generation's releases say of its age (`quality.drift`), read from the warehouse.

Not done here: acting on it; Dagster's sensor ``drift`` asks for a `retrain`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sidlake.quality.drift import DriftConfig, signals
from sidlake.warehouse.releases import Release, level_widths
from sidlake.warehouse.tables import Warehouse

__all__ = ["drift_reasons"]


def drift_reasons(warehouse: Warehouse, releases: Sequence[Release], config: DriftConfig) -> list[str]:
    """Return why the current generation should be replaced, one sentence per signal beyond its limit; empty where none is.

    `releases` is the history, oldest first.
    """
    if not releases:
        return []
    latest = releases[-1]
    of_generation = [release for release in releases if release.generation == latest.generation]
    first, last = of_generation[0].metrics, latest.metrics
    num_items = warehouse.num_rows("items", latest.tables["items"])
    capacity_share = num_items / math.prod(level_widths(warehouse, latest))
    return signals(first, last, capacity_share=capacity_share, config=config)
