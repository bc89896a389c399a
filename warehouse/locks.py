"""The writer lock: one run at a time writes to a warehouse.

It is an `flock` on one file, so the operating system releases it however the holder ends, `kill -9` included; the file's text says
who holds it and is never what decides. A run may take the lock again within its process (a counter), since the assets of a
run share one; where they run in processes of their own, one waits for the other. Not done here: waiting for another run (the caller
retries), or locking across machines that do not share the file
system, where the conditioned commit of `releases` still lets exactly one publisher win.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sidlake.errors import StorageError, WarehouseBusy

__all__ = ["hold"]


@dataclass(slots=True)
class _Held:
    descriptor: int
    run_id: str
    depth: int


_HELD: dict[str, _Held] = {}
_GUARD = threading.Lock()


def _forget_in_child() -> None:
    """Close the copies a forked child inherits: an open copy would keep the lock after its owner died."""
    for held in _HELD.values():
        os.close(held.descriptor)
    _HELD.clear()


os.register_at_fork(after_in_child=_forget_in_child)


@contextmanager
def hold(path: Path, run_id: str, *, wait_for_own: bool = False) -> Iterator[None]:
    """Hold the lock file `path` for `run_id` while the block runs; nested use by the same run in the same process is free.

    With `wait_for_own` a process waits for another one that holds it for the same run.
    Raises `WarehouseBusy` at once, naming the holder, when another run or process holds it, and `StorageError` when the file cannot
    be opened for writing.
    """
    key = str(path.resolve())
    with _GUARD:
        held = _HELD.get(key)
        if held is None:
            held = _HELD[key] = _Held(_acquire(path, run_id, wait_for_own), run_id, 0)
        elif held.run_id != run_id:
            raise _busy(path, run_id)
        held.depth += 1
    try:
        yield
    finally:
        with _GUARD:
            held.depth -= 1
            if held.depth == 0:
                del _HELD[key]
                os.close(held.descriptor)


def _acquire(path: Path, run_id: str, wait_for_own: bool) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        msg = f"cannot open the writer lock {path}: {error.strerror}; make the directory writable or choose another warehouse"
        raise StorageError(msg, path=str(path)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        if not wait_for_own or _holder(path).get("run_id") != run_id:
            os.close(descriptor)
            raise _busy(path, run_id) from error
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    holder = {"run_id": run_id, "pid": os.getpid(), "started_at": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
    except OSError as error:
        os.close(descriptor)
        msg = f"cannot write the writer lock {path}: {error.strerror}; free space on that disk"
        raise StorageError(msg, path=str(path)) from error
    return descriptor


def _holder(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):  # the holder is writing its name at this moment
        return {}


def _busy(path: Path, run_id: str) -> WarehouseBusy:
    holder = _holder(path)
    names = {key: holder.get(key, "unknown") for key in ("run_id", "pid", "started_at")}
    msg = (
        f"{path.parent} is being written by run {names['run_id']} (process {names['pid']}, since {names['started_at']}); "
        f"run {run_id} must wait until it ends, or stop that process: the lock is freed when it exits"
    )
    return WarehouseBusy(msg, path=str(path), waiting=run_id, **names)
