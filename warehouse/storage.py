"""Errors of the operating system, of Delta and of Arrow, told as what they mean for a warehouse and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from deltalake.exceptions import DeltaError, TableNotFoundError

from sidlake.tokenizers.errors import NotFoundError, StorageError

__all__ = ["disk_errors", "storage_errors"]


@contextmanager
def storage_errors(path: str | Path) -> Iterator[None]:
    """Raise `StorageError` (or `NotFoundError` where there is no table) for what Delta, Arrow or the system raise in the block."""
    try:
        yield
    except TableNotFoundError as error:
        msg = f"no table at {path}"
        raise NotFoundError(msg, path=str(path)) from error
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise _storage_error(path, error) from error


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Raise `StorageError` for what the operating system raises in the block: no space, no permission. Other errors pass."""
    try:
        yield
    except OSError as error:
        raise _storage_error(path, error) from error


def _storage_error(path: str | Path, error: Exception) -> StorageError:
    msg = f"reading or writing {path} failed: {error}; {_remedy(str(error))}; published releases are untouched"
    return StorageError(msg, path=str(path))


def _remedy(text: str) -> str:
    lowered = text.lower()
    if "no space left" in lowered or "file too large" in lowered or "quota" in lowered:
        return "free space on that disk or raise the limit, then run again"
    if "permission denied" in lowered or "read-only" in lowered:
        return "make the directory writable for this user or choose another warehouse"
    return "check that the disk is healthy and the files are whole, then run again"
