"""Limits beyond which a generation should be replaced, and what happens to items that leave: settings of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from sidlake.errors import RecipeError

__all__ = ["DriftConfig", "RetirementConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftConfig:
    """Limits of the signals in `pipelines.measuring.drift`; None gives no signal.

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


@dataclass(frozen=True, kw_only=True, slots=True)
class RetirementConfig:
    """Which items leave the catalogue; their SIDs stay theirs for as long as the generation is in use.

    Attributes:
        missing: retire an item that the source has no more; for sources that list the catalogue, never for transactions.
        after_days: retire an item whose last event is more than so many days before the newest event.
    """

    missing: bool = False
    after_days: int | None = None

    def __post_init__(self) -> None:
        if self.after_days is not None and self.after_days < 1:
            msg = f"retirement.after_days must be at least 1, got {self.after_days}"
            raise RecipeError(msg)
