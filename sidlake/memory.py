"""One limit of memory for all that a process does with a warehouse: how it is written, what it is by default, who gets which part.

Half of the limit is DuckDB's (`sessions`), which spills to disk beyond it; the rest is the interpreter's, the models' and the rows'
on their way. Nothing of this may change a result: blocks of products are as large under every limit, a limit is in no
digest, and a step that holds more than it allows is refused before it starts (`refuse_too_small`), not killed in its middle.
Not done here: holding the process to the limit, which is for its cgroup.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sidlake.errors import MemoryTooSmall

__all__ = ["FLOOR", "default_limit", "duckdb_share", "machine_memory", "parse_size", "refuse_too_small", "spelled"]

MIB = 2**20
FLOOR = 512 * MIB
"""What the program itself takes, and so the least limit: 505 MiB of its own after a retrain of a thousand items, torch, Polars and
DuckDB loaded. Pages of the libraries' files, 530 MiB more of resident memory, are not counted: the system may drop them."""

_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?([A-Za-z]{2,3})")
_UNLIMITED = 2**60  # cgroup v1 says "no limit" with a number near 2**63


def parse_size(text: str) -> int:
    """Return the bytes that `text` says; ValueError, with what is accepted, for a size without unit, below `FLOOR`, or no size.

    >>> parse_size("4GiB"), parse_size("1500MB")
    (4294967296, 1500000000)
    """
    found = _SIZE.fullmatch(text.strip())
    factor = _UNITS.get(found[2].upper()) if found else None
    if found is None or factor is None:
        msg = f"a memory limit is a number and a unit (MiB, GiB, TiB, MB, GB, TB), such as 4GiB, 512MiB or 3000MB, got {text!r}"
        raise ValueError(msg)
    size = int(float(found[1]) * factor)
    if size < FLOOR:
        msg = f"a memory limit of {text} is below {spelled(FLOOR)}, which the program takes before it has a row; give more"
        raise ValueError(msg)
    return size


def spelled(num_bytes: int) -> str:
    """Return a size for people.

    >>> spelled(3 * 2**29), spelled(700 * 2**20)
    ('1.5 GiB', '700 MiB')
    """
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / MIB:.0f} MiB"


def machine_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process may use: the machine's, or the least of its cgroups', of version 1 and 2.

    `root` is where ``proc`` and ``sys`` lie. A container sees its own cgroup as the top, whatever its path is outside.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _limit_files(root):
        try:
            text = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal() and 0 < int(text) < _UNLIMITED:  # "max": no limit
            limits.append(int(text))
    return min(limits)


def default_limit() -> int:
    """Return half of `machine_memory`, and `FLOOR` at least."""
    return max(FLOOR, machine_memory() // 2)


def duckdb_share(limit: int) -> int:
    """Return the part of the limit that DuckDB may hold before it spills."""
    return limit // 2


def refuse_too_small(limit: int, needed: int, *, step: str, why: str) -> None:
    """Raise `MemoryTooSmall` where `step` holds more than the limit allows; `why` says what it holds."""
    if needed > limit:
        msg = (
            f"step {step} needs {spelled(needed)} of memory ({why}), the limit is {spelled(limit)}; "
            "give more by --memory or the recipe's key memory, or run it on a larger machine"
        )
        raise MemoryTooSmall(msg, step=step, needed=needed, limit=limit)


def _limit_files(root: Path) -> list[Path]:
    """Return the files that may hold a limit: of the process's cgroup and all above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        name = "memory.max" if not controllers else "memory.limit_in_bytes"
        folder = top / path.lstrip("/")
        files += [parent / name for parent in (folder, *folder.parents) if parent == top or top in parent.parents]
    return files
