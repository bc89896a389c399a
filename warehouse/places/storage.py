"""Errors of the operating system, of Delta and of Arrow, told as what they mean for a warehouse and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from deltalake.exceptions import DeltaError, TableNotFoundError

from sidlake.errors import NotFoundError, StorageError

__all__ = ["disk_errors", "storage_errors"]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 600


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
    text = str(error)
    if str(path).startswith("s3://"):
        text = " ".join(_COLOURS.sub("", text).split())[:_LONGEST]  # the object store's client draws a tree, in colours
    shown = text.split("\n   0: ")[0]  # Delta's client adds the stack it failed on
    remedy = _store_remedy(text) if str(path).startswith("s3://") else _remedy(text)
    msg = f"reading or writing {path} failed: {shown}; {remedy}; published releases are untouched"
    return StorageError(msg, path=str(path))


def _remedy(text: str) -> str:
    lowered = text.lower()
    if "no space left" in lowered or "file too large" in lowered or "quota" in lowered:
        return "free space on that disk or raise the limit, then run again"
    if "permission denied" in lowered or "read-only" in lowered:
        return "make the directory writable for this user or choose another warehouse"
    return "check that the disk is healthy and the files are whole, then run again"


def _store_remedy(text: str) -> str:
    lowered = text.lower().replace("_", " ")
    if "nosuchbucket" in lowered or "bucket does not exist" in lowered:
        return "create the bucket or name another"
    # without credentials the clients ask the address of a cloud machine's own role
    if any(
        sign in lowered for sign in ("169.254.169.254", "credential", "access denied", "accessdenied", "forbidden", "signature")
    ):
        return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key that may read and write there"
    if any(sign in lowered for sign in ("connect", "resolve", "timed out", "timeout", "error sending request")):
        return "check AWS_ENDPOINT_URL and the network, then run again"
    return "check that the store is healthy and the objects are there, then run again"
