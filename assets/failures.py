"""Which errors Dagster may try again: storage that did not answer, and a busy writer. Bad data stays bad and fails at once.

Every asset and check runs inside `failing_fast` and carries `IO_RETRIES`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from sidlake.errors import SidlakeError, StorageError, WarehouseBusy

__all__ = ["IO_RETRIES", "failing_fast"]

# 2 + 4 + 8 + 16 seconds: long enough for a network file system to come back or a reader of the lock to end, short enough that a
# warehouse someone else writes to for an hour is reported, not waited for.
IO_RETRIES = dg.RetryPolicy(max_retries=4, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


@contextmanager
def failing_fast() -> Iterator[None]:
    """Turn every error in the block that a retry cannot cure into a `dagster.Failure` without retries.

    `StorageError`, `WarehouseBusy` and the operating system's errors pass unchanged, for the retry policy. The failure's metadata
    holds the error's name and the values behind it; its cause is the error itself, with its traceback.
    """
    try:
        yield
    except (StorageError, WarehouseBusy, OSError):
        raise
    except Exception as error:  # bad data, or a bug: neither gets better by waiting
        details = error.details if isinstance(error, SidlakeError) else {}
        metadata: dict[str, Any] = {
            "error": type(error).__name__,
            "message": str(error),
            "details": dg.MetadataValue.json(json.loads(json.dumps(details, default=str))),
        }
        raise dg.Failure(f"{type(error).__name__}: {error}", metadata=metadata, allow_retries=False) from error
