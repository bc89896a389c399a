"""The quality section of a recipe: how much of a large catalogue is measured."""

from __future__ import annotations

from dataclasses import dataclass

from sidlake.errors import RecipeError

__all__ = ["QualityConfig"]

_LEAST_SESSIONS = 1_000
"""Sessions that are measured however large the catalogue is: a 95 % interval of a rate is 3 % wide to either side at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityConfig:
    """How much of a large catalogue is measured; nothing of this may change a code.

    Attributes:
        exact_items: items of a catalogue up to which `split.max_sessions` sessions are scored, each against every item. Above it
            proportionally fewer are, a seeded sample of 1,000 at least, so that hit rates cost what they cost there; the metric
            ehr_sampled_share says which share of the sessions that is, and the intervals what it is worth.
    """

    exact_items: int = 200_000

    def __post_init__(self) -> None:
        if self.exact_items < 1:
            msg = f"quality.exact_items must be >= 1, got {self.exact_items}"
            raise RecipeError(msg)

    def num_sessions(self, num_items: int, most: int) -> int:
        """Return how many sessions of a catalogue are scored, `most` up to `exact_items`.

        >>> [QualityConfig().num_sessions(items, 20_000) for items in (10_000, 200_000, 1_000_000, 100_000_000)]
        [20000, 20000, 4000, 1000]
        """
        if num_items <= self.exact_items:
            return most
        return min(most, max(_LEAST_SESSIONS, most * self.exact_items // num_items))
