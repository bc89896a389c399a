"""The command that verifies a release again, as scripts want it: exit code 1 where anything refuses or no longer holds."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sidlake.cli.output import (
    DEFAULT_WAREHOUSE,
    JsonOption,
    MemoryOption,
    WarehouseOption,
    open_warehouse,
    print_error,
    print_json,
    print_line,
    print_rows,
)
from sidlake.errors import GateFailed

__all__ = ["check", "print_advice"]


def check(
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="A release (r000003), a pin (prod) or current.")] = "current",
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a release again from storage: laws, files, content, codes against vectors, and the verdicts of its gates.

    Example: sidlake check r000003 --json
    """
    from sidlake.reports.verification import check_release

    found = check_release(open_warehouse(warehouse, memory=memory), release)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found["verdict"] in ("refuse", "broken"):
        raise typer.Exit(1)


def _print(found: dict[str, Any]) -> None:
    print_line(f"release {found['release']} of generation {found['generation']}: {found['verdict']}")
    if found["override"]:
        print_line(f"published against its gates: {found['override']}")
    for one in found["broken"]:
        print_line(f"{one['error']}: {one['rule']}: {one['message']}")
    judged = [row for row in found["metrics"] if row["verdict"] != "info"]
    print_rows("gates", ["metric", "level", "value", "threshold", "verdict"], judged)
    for row in judged:
        if row["verdict"] != "pass":
            level = "" if row["level"] is None else f" of level {row['level']}"
            print_line(f"{row['metric']}{level}: {row['reason']}; try: {row['remedy']}")
            for example in row["examples"] or []:
                print_line(f"  {example}")


def print_advice(error: GateFailed) -> None:
    """Say why each gate refused, which items to look at and what to try, on stderr."""
    from sidlake.quality.gates import remedy_for

    rows: Any = error.details.get("failing", [])
    for row in rows:
        level = "" if row.get("level") is None else f" of level {row['level']}"
        print_error(f"  {row['metric']}{level}: {row.get('reason') or 'refused'}; try: {remedy_for(row['metric'])}")
        for example in row.get("examples") or []:
            print_error(f"    {example}")
    if rows:
        print_error('  to publish all the same, with the reason on record: sidlake run JOB --override "REASON"')
