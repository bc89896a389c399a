"""What a figure was measured on, and how: peers take turns, so that a slow minute of the machine slows them all."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any


def machine(*packages: str) -> dict[str, Any]:
    """Return the processor, the cores this process may use, and the versions of Python and the packages."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _processor(), "cores": cores, "python": platform.python_version()} | {name: version(name) for name in packages}


def in_turns(contenders: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each of `repeats` calls per contender, after one call each that is not counted."""
    for call in contenders.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], peer: str, ours: str) -> float:
    """Return how many times faster ours is: the median, over the turns, of the peer's seconds to ours."""
    return round(median(a / b for a, b in zip(seconds[peer], seconds[ours], strict=True)), 3)


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
