"""What a catalogue of N items costs, step by step, through the command line: seconds, processor time, peak memory, bytes written.

    python benchmarks/scale.py --items 30000 100000 [--events M] [--memory 4GiB] [--json] [--folder DIR]

Makes a shop of N items and M events (5 N unless told), vectors of 64 dimensions from a table so that no model runs, and then, each
as a process of its own:

- ``retrain``: everything, for the first time;
- ``refresh``: 1,000 new items and 10,000 new events, unless told otherwise;
- ``again``: a refresh with nothing new.

A step's peak is the highest resident memory of the process during it (``VmHWM``, reset between steps as Linux does it), so it holds
the interpreter and what earlier steps left; ``before`` is what was there when the step began. ``cpu`` is the processor time of all
threads, which a busy machine stretches less than seconds. Bytes written are those of the process's ``write`` calls. Steps are
told apart by the lines that ``sidlake run`` prints. With several sizes, the growth of each step is fitted: the exponent of its
processor time, and the bytes of peak memory per item. Linux only; all lies in a temporary folder.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from scaling.catalogue import Shop

DAY = (1_000, 10_000)
EVENTS_PER_ITEM = 5
MIB = 2**20
_TICKS = os.sysconf("SC_CLK_TCK")
_STEP_LINE = re.compile(r"^(\w+) +([\d.]+) s  ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[30_000])
    parser.add_argument("--events", type=int, help=f"{EVENTS_PER_ITEM} per item if not given")
    parser.add_argument("--new", type=int, nargs=2, default=DAY, metavar=("ITEMS", "EVENTS"), help="what the refresh brings")
    parser.add_argument("--memory", help="passed on to sidlake run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    arguments = parser.parse_args()
    runs = [
        measured(items, arguments.events, new=tuple(arguments.new), memory=arguments.memory, folder=arguments.folder)
        for items in arguments.items
    ]
    result = {"runs": runs, "growth": growth(runs), "machine": machine("sidlake", "duckdb", "polars", "pyarrow", "numpy")}
    print(json.dumps(result) if arguments.json else shown(result))


def measured(
    items: int, events: int | None, *, new: tuple[int, int] = DAY, memory: str | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Return what the three jobs cost on a shop of so many items: a row per job and step."""
    events = EVENTS_PER_ITEM * items if events is None else events
    with tempfile.TemporaryDirectory(prefix="sidlake-scale-", dir=folder) as name:
        shop = Shop(folder=Path(name))
        shop.write(items, events)
        steps = run("retrain", shop.folder, memory)
        shop.grow(known=items, items=new[0], events=new[1])
        steps += run("refresh", shop.folder, memory)
        steps += run("again", shop.folder, memory)
        size = sum(file.stat().st_size for file in (shop.folder / "lake").rglob("*") if file.is_file())
    return {"items": items, "events": events, "memory": memory, "steps": steps, "warehouse_bytes": size}


def run(name: str, folder: Path, memory: str | None) -> list[dict[str, Any]]:
    """Return the steps of one job, as `sidlake run` did them in a process of its own; what it says goes to stderr."""
    job = "retrain" if name == "retrain" else "refresh"
    command = [sys.executable, "-c", "from sidlake.cli.app import main; main()", "run", job, "--override", "a benchmark"]
    command += ["--recipe", str(folder / "recipe.toml"), "--warehouse", str(folder / "lake")]
    command += ["--memory", memory] if memory else []
    begin = time.perf_counter()
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(folder)})
    assert child.stderr is not None
    meter, steps = Meter(child.pid), []
    for line in child.stderr:
        print(line, end="", file=sys.stderr)
        if found := _STEP_LINE.match(line):
            steps.append({"job": name, "step": found[1], "seconds": float(found[2]), **meter.lap()})
    if child.wait():
        sys.exit(f"sidlake run {job} ended with {child.returncode}; see above")
    return [*steps, {"job": name, "step": "all", "seconds": round(time.perf_counter() - begin, 2), **meter.whole()}]


class Meter:
    """Peak and present memory of a process and the bytes it has written, between calls of `lap`."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc") / str(pid)
        self._written = self._before = self._highest = 0
        self._cpu = self._ticks()
        self._first = self._cpu

    def _ticks(self) -> int:
        """Return the clock ticks of processor time that the process has had."""
        user, system = (self._folder / "stat").read_text().rpartition(")")[2].split()[11:13]
        return int(user) + int(system)

    def lap(self) -> dict[str, float]:
        """Return peak, memory at the start and bytes written since the last call; the process must still be there."""
        status = dict(line.split(":", 1) for line in (self._folder / "status").read_text().splitlines())
        peak, now = (int(status[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS"))
        (self._folder / "clear_refs").write_text("5")
        written = int(dict(line.split(": ") for line in (self._folder / "io").read_text().splitlines())["wchar"])
        row = {"peak_bytes": peak, "before_bytes": self._before, "written_bytes": written - self._written}
        ticks = self._ticks()
        row |= {"cpu_seconds": (ticks - self._cpu) / _TICKS}
        self._cpu, self._written, self._before, self._highest = ticks, written, now, max(self._highest, peak)
        return row

    def whole(self) -> dict[str, float]:
        """Return the same of all laps."""
        cpu = (self._cpu - self._first) / _TICKS
        return {"peak_bytes": self._highest, "before_bytes": 0, "written_bytes": self._written, "cpu_seconds": cpu}


def growth(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return per job and step the exponent of processor time in N, and peak bytes per item, over the sizes; nothing of one size.

    Processor time below 0.2 s at the largest size has no exponent: it is not of N.
    """
    if len(runs) < 2:
        return []
    items = np.array([one["items"] for one in runs], dtype=np.float64)
    of = [{(row["job"], row["step"]): row for row in one["steps"]} for one in runs]
    rows = []
    for job, step in (key for key in of[-1] if all(key in one for one in of)):
        seconds = np.array([one[job, step]["cpu_seconds"] for one in of])
        peaks, written = ([one[job, step][name] for one in of] for name in ("peak_bytes", "written_bytes"))
        exponent = np.polyfit(np.log(items), np.log(np.maximum(seconds, 0.05)), 1)[0] if seconds[-1] >= 0.2 else None
        row = {"job": job, "step": step, "exponent": None if exponent is None else round(float(exponent), 2)}
        row |= {
            "peak_bytes_per_item": round(np.polyfit(items, peaks, 1)[0]),
            "written_per_item": round(np.polyfit(items, written, 1)[0]),
        }
        rows.append(row)
    return rows


def shown(result: dict[str, Any]) -> str:
    """Return the figures as tables for people."""
    lines = [str(result["machine"])]
    for one in result["runs"]:
        lines.append(f"{one['items']:,} items, {one['events']:,} events, warehouse {one['warehouse_bytes'] / MIB:,.0f} MiB")
        lines.append(f"{'job':<9}{'step':<19}{'seconds':>9}{'cpu':>8}{'peak MiB':>10}{'before':>8}{'written MiB':>13}")
        lines += [
            f"{row['job']:<9}{row['step']:<19}{row['seconds']:>9.1f}{row['cpu_seconds']:>8.1f}{row['peak_bytes'] / MIB:>10,.0f}"
            f"{row['before_bytes'] / MIB:>8,.0f}{row['written_bytes'] / MIB:>13,.1f}"
            for row in one["steps"]
        ]
    if result["growth"]:
        lines.append(f"{'job':<9}{'step':<19}{'exponent':>9}{'B/item':>10}{'written/item':>14}")
    lines += [
        f"{row['job']:<9}{row['step']:<19}{'-' if row['exponent'] is None else row['exponent']:>9}"
        f"{row['peak_bytes_per_item']:>10,}{row['written_per_item']:>14,}"
        for row in result["growth"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
