"""The command that writes events with the SIDs of their time."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from sidlake.cli.output import (
    DEFAULT_WAREHOUSE,
    JsonOption,
    WarehouseOption,
    open_warehouse,
    print_json,
    print_line,
    usage,
)

__all__ = ["frame"]


def frame(
    output: Annotated[Path, typer.Argument(help="A Parquet file that is not there yet.")],
    at: Annotated[str | None, typer.Option(help="Time of the frame, ISO 8601, UTC if it says nothing; now, if none.")] = None,
    since: Annotated[str | None, typer.Option(help="Leave events before this time out.")] = None,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Write each event with the SID that its item had in the release in force when it happened: a training frame of its time.

    Example: sidlake frame events.parquet --at 2026-11-01 --since 2026-10-01
    """
    from sidlake.warehouse.outlets.frames import write_frame

    made = write_frame(open_warehouse(warehouse), output, at=_time("--at", at), since=_time("--since", since))
    if as_json:
        print_json(asdict(made) | {"num_events": made.num_events, "num_with_sid": made.num_with_sid})
        return
    before = sum(span.num_events for span in made.spans if span.release_id is None)
    lacking = made.num_events - made.num_with_sid - before
    print_line(f"{made.path}: {made.num_events:,} events of {made.events_of}, {made.num_with_sid:,} with a SID of their time")
    if before:
        print_line(f"  {before:,} are older than the first release")
    if lacking:
        print_line(f"  {lacking:,} are of items that the release in force did not have")


def _time(option: str, given: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        usage(f"{option} {given!r} is no time; write it as 2026-11-01 or 2026-11-01T12:30:00+01:00")
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
