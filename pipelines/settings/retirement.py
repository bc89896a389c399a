"""Which items leave a catalogue: settings of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from sidlake.errors import RecipeError

__all__ = ["RetirementConfig"]


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
