"""When a generation has served its time: what the metrics of the last releases say, against the limits of the recipe's ``drift``.

Four signals, each measured with every release: items that have changed since they got their SIDs (staleness_share), what unique
codes cost the newest items (the rise of mean_move_cost since the generation's first release), a falling hit rate (the loss of
ehr_reconstructed since then, as a share of it), and a code space that fills (items over the product of the widths). A limit that is
not set gives no signal. Not done here: acting on them; Dagster's sensor ``drift`` asks for a `retrain`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sidlake.pipelines.settings.drift import DriftConfig
from sidlake.warehouse.releases import Release
from sidlake.warehouse.tables import Warehouse

__all__ = ["drift_reasons", "signals"]


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
    widths = warehouse.scan("codebooks", version=latest.tables["codebooks"]).filter(generation=latest.generation)
    capacity = math.prod(widths.group_by("level").len().collect()["len"].to_list())
    return signals(first, last, capacity_share=num_items / capacity, config=config)


def signals(first: Mapping[str, float], last: Mapping[str, float], *, capacity_share: float, config: DriftConfig) -> list[str]:
    """Return the sentences of `drift_reasons` for the metrics of the generation's first release and of the last one.

    >>> signals({}, {"staleness_share": 0.2}, capacity_share=0.01, config=DriftConfig(max_staleness_share=0.1))
    ['staleness_share is 0.2, the limit is 0.1']
    """
    rise = _difference(first, last, "mean_move_cost")
    loss = _difference(last, first, "ehr_reconstructed")
    lost = loss / first["ehr_reconstructed"] if loss is not None and first["ehr_reconstructed"] else None
    found = [
        ("staleness_share", last.get("staleness_share"), config.max_staleness_share),
        ("the rise of mean_move_cost", rise, config.max_move_cost_rise),
        ("the share of ehr_reconstructed that was lost", lost, config.max_hit_rate_loss),
        ("the share of the code space in use", capacity_share, config.max_capacity_share),
    ]
    return [
        f"{name} is {value:.4g}, the limit is {limit:.4g}"
        for name, value, limit in found
        if value is not None and limit is not None and value > limit
    ]


def _difference(before: Mapping[str, float], after: Mapping[str, float], metric: str) -> float | None:
    return after[metric] - before[metric] if metric in before and metric in after else None
