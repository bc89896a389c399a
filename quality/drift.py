"""When a generation has served its time: metrics of its first release and its last, against limits.

Four signals, each measured with every release: items that have changed since they got their SIDs (staleness_share), what unique
codes cost the newest items (the rise of mean_move_cost since the generation's first release), a falling hit rate (the loss of
ehr_reconstructed since then, as a share of it), and a code space that fills (items over the product of the widths). A limit that is
not set gives no signal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidlake.errors import RecipeError

__all__ = ["DriftConfig", "signals"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftConfig:
    """Limits of the signals in `quality.drift`; None gives no signal.

    Attributes:
        max_staleness_share: items whose vector would choose other codes today, as a share.
        max_move_cost_rise: growth of mean_move_cost since the generation's first release.
        max_hit_rate_loss: fall of ehr_reconstructed since then, as a share of it.
        max_capacity_share: items as a share of the code space.
    """

    max_staleness_share: float | None = 0.1
    max_move_cost_rise: float | None = None
    max_hit_rate_loss: float | None = None
    max_capacity_share: float | None = 0.8

    def __post_init__(self) -> None:
        for name in self.__slots__:
            limit = getattr(self, name)
            if limit is not None and not limit >= 0:
                msg = f"drift.{name} must be at least 0, got {limit}: leave it out for no signal"
                raise RecipeError(msg)


def signals(first: Mapping[str, float], last: Mapping[str, float], *, capacity_share: float, config: DriftConfig) -> list[str]:
    """Return the sentences, one per signal beyond its limit, for the metrics of the generation's first release and of the last one.

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
