"""Every error sidlake raises on purpose: one root, one child per rule that can break.

They live beside the rooms because every room may import them, and they import nothing. Each message says what broke, the value, the
limit and what to do. All of them pickle, since they cross process boundaries.
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "CapacityError",
    "ContractError",
    "EncoderError",
    "FitError",
    "GateFailed",
    "HoldError",
    "LawBroken",
    "MemoryTooSmall",
    "NotFoundError",
    "RecipeError",
    "ReleaseConflict",
    "RetrainNeeded",
    "RunStateError",
    "SidlakeError",
    "SourceError",
    "StaleReleaseError",
    "StaleStepError",
    "StorageError",
    "WarehouseBusy",
]


class SidlakeError(Exception):
    """Root of all errors raised on purpose: ``str(error)`` is the message a user reads, `details` the values behind it.

    >>> import pickle
    >>> error = pickle.loads(pickle.dumps(CapacityError("full", needed=9, capacity=8)))
    >>> str(error), error.details["needed"]
    ('full', 9)
    """

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.details)


def _rebuild(kind: type[SidlakeError], message: str, details: dict[str, object]) -> SidlakeError:
    return kind(message, **details)


class RecipeError(SidlakeError):
    """A recipe has an unknown key, a missing key or a value out of range."""


class SourceError(SidlakeError):
    """A source file is missing, unreadable, truncated, or lacks a column that the recipe names."""


class ContractError(SidlakeError):
    """Rows break a table's contract: empty table, wrong type, or more rejected rows than the recipe allows."""


class EncoderError(SidlakeError):
    """An encoder cannot be loaded or returned something that is not a finite vector per row."""


class FitError(SidlakeError):
    """Codebooks cannot be fitted: too few rows, a vector that is not finite, or a wrong dimension."""


class ArtifactError(SidlakeError):
    """A stored artifact (codebook, fusion, checkpoint) is damaged, of another format, or of another dimension."""


class CapacityError(SidlakeError):
    """More items than the code space holds; raised before anything is written."""


class GateFailed(SidlakeError):
    """A quality gate refused publication; `details` holds the failing metrics with value and threshold."""


class HoldError(SidlakeError):
    """The current release is a rollback, after which runs publish nothing until somebody lifts the hold."""


class LawBroken(SidlakeError):
    """What lies in storage, re-read, breaks a law (unique, complete, fixed length, still); nothing is published."""


class MemoryTooSmall(SidlakeError):
    """The limit of memory is below what a step or a query needs; refused before the step, or as soon as DuckDB cannot go on."""


class RetrainNeeded(SidlakeError):
    """A refresh met a recipe that changes what a generation was fitted with; only a retrain may, and nothing was written."""


class RunStateError(SidlakeError):
    """A run was to go on from where it stopped, and what it had done is not in the warehouse or cannot be used."""


class StaleStepError(SidlakeError):
    """A release would name results of steps whose inputs or settings have changed since; `details` names the steps."""


class StorageError(SidlakeError):
    """The warehouse cannot be read or written: no permission, no space, a damaged file."""


class WarehouseBusy(SidlakeError):
    """Another run is writing to this warehouse."""


class ReleaseConflict(SidlakeError):
    """The current release is no longer the one this run started from."""


class StaleReleaseError(SidlakeError):
    """A checkpoint was asked to read a generation other than the one it was trained with."""


class NotFoundError(SidlakeError):
    """An item, release, table or checkpoint that was asked for by name does not exist."""
