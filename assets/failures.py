"""Which errors Dagster may try again: storage that did not answer, and a busy writer. Bad data stays bad and fails at once.

Every asset and check runs inside `failing_fast` and carries `IO_RETRIES`. What is not a `SidlakeError` (a full GPU, an error of the
operating system, a bug) is retried as well, a few times and with growing pauses, because some of these do pass.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from sidlake.tokenizers.errors import SidlakeError, StorageError, WarehouseBusy

__all__ = ["IO_RETRIES", "failing_fast"]

# 2 + 4 + 8 + 16 seconds: long enough for a network file system to come back or a reader of the lock to end, short enough that a
# warehouse someone else writes to for an hour is reported, not waited for.
IO_RETRIES = dg.RetryPolicy(max_retries=4, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


@contextmanager
def failing_fast() -> Iterator[None]:
    """Turn every `SidlakeError` in the block that a retry cannot cure into a `dagster.Failure` without retries.

    The failure's metadata holds the error's name and the values behind it; its cause is the error itself.
    """
    try:
        yield
    except (StorageError, WarehouseBusy):
        raise
    except SidlakeError as error:
        details = json.loads(json.dumps(error.details, default=str))
        metadata = {"error": type(error).__name__, "message": error.message, "details": dg.MetadataValue.json(details)}
        raise dg.Failure(f"{type(error).__name__}: {error}", metadata=metadata, allow_retries=False) from error
