"""Training frames as they were: each event with the SID that its item had in the release in force when it happened.

A model that is trained on yesterday's events with today's SIDs has seen what nobody could have known, and is served with others
than it learned. A release is in force from its `created_at` until the next one's, a rollback too. Events are those of the release
in force at the frame's own time, none later than that time; so the same time gives the same frame, whatever is published after it.

An event older than the first release has neither release nor SID; one of an item that the release in force did not have has a
release and no SID. Memory: 8 bytes per event, and the events of one release's time with the SIDs of that release.
Not done here: histories and targets (see `user_sequences`), and guessing the SIDs of a vacuumed release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sidlake.errors import ContractError, NotFoundError
from sidlake.warehouse.keep.leases import reading
from sidlake.warehouse.keep.vacuumed import vacuumed
from sidlake.warehouse.places.storage import disk_errors
from sidlake.warehouse.releases import Release, history
from sidlake.warehouse.tables import Warehouse
from sidlake.whole_files import replacing

__all__ = ["SCHEMA", "Frame", "Span", "write_frame"]

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("ts", pa.timestamp("us", tz="UTC")),
        ("event", pa.string()),
        ("weight", pa.float32()),
        ("release_id", pa.string()),
        ("generation", pa.string()),
        ("sid", pa.string()),
        ("codes", pa.list_(pa.int32())),
    ]
)
"""The columns of a frame; the last four are null where no release was in force, the last two where it lacked the item."""

_EVENTS = ["user_id", "item_id", "ts", "event", "weight"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """What happened while a release was in force; `release_id` None is before the first one."""

    release_id: str | None
    generation: str | None
    num_events: int
    num_with_sid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What was written: the file, the release whose events these are, and its spans, oldest first, those with events only."""

    path: str
    events_of: str
    at: datetime | None
    since: datetime | None
    spans: list[Span]

    @property
    def num_events(self) -> int:
        """The rows of the frame."""
        return sum(span.num_events for span in self.spans)

    @property
    def num_with_sid(self) -> int:
        """The rows that have a SID."""
        return sum(span.num_with_sid for span in self.spans)


def write_frame(warehouse: Warehouse, output: Path, *, at: datetime | None = None, since: datetime | None = None) -> Frame:
    """Write the Parquet file `output`, rows in the order of `ts`, user, item and event, and return what it holds.

    `at` (UTC; the current release and all its events without) is the frame's time, `since` leaves older events out. Raises
    `ContractError` where `output` is there already, and `NotFoundError` where no release was in force at `at`, or where one in
    whose time events fall was vacuumed: it names them, and a `since` that does without.
    """
    if output.exists():
        msg = f"{output} is there already; frames do not overwrite, name a file that is not there"
        raise ContractError(msg, output=str(output))
    known = [one for one in history(warehouse) if at is None or one.created_at <= at]
    if not known:
        msg = f"no release of {warehouse.url} was in force at {at or 'any time'}; see sidlake releases"
        raise NotFoundError(msg, at=str(at))
    with reading(warehouse, known[-1].release_id) as last:
        events = _events(warehouse, last, at, since)
        counts = _counts(events, known)
        _refuse_vacuumed(warehouse, known, counts)
        with disk_errors(output), replacing(output) as partial, pq.ParquetWriter(partial, SCHEMA) as writer:
            spans = [_write_span(warehouse, events, known, place, writer) for place, count in enumerate(counts, start=-1) if count]
    return Frame(path=str(output), events_of=last.release_id, at=at, since=since, spans=spans)


def _events(warehouse: Warehouse, release: Release, at: datetime | None, since: datetime | None) -> pl.LazyFrame:
    if "interactions" not in release.tables:
        msg = f"release {release.release_id} has no interactions, so there is nothing to frame; its recipe names none"
        raise NotFoundError(msg, release_id=release.release_id)
    events = warehouse.scan("interactions", version=release.tables["interactions"]).select(_EVENTS)
    if at is not None:
        events = events.filter(pl.col("ts") <= at)
    return events if since is None else events.filter(pl.col("ts") >= since)


def _counts(events: pl.LazyFrame, known: Sequence[Release]) -> list[int]:
    """Return how many events fall before the first release, then in the time of each."""
    starts = np.array([(one.created_at - _EPOCH) // timedelta(microseconds=1) for one in known], dtype=np.int64)
    at_E = events.select(pl.col("ts").dt.timestamp("us")).collect()["ts"].to_numpy()
    return [int(count) for count in np.bincount(np.searchsorted(starts, at_E, side="right"), minlength=len(known) + 1)]


def _refuse_vacuumed(warehouse: Warehouse, known: Sequence[Release], counts: Sequence[int]) -> None:
    gone = vacuumed(warehouse)
    lost = [place for place, one in enumerate(known) if counts[place + 1] and one.release_id in gone]
    if lost:
        names = ", ".join(known[place].release_id for place in lost)
        after = known[lost[-1] + 1].created_at.isoformat() if lost[-1] + 1 < len(known) else None
        remedy = f"leave their time out: --since {after}" if after else "name an earlier --at"
        events = sum(counts[place + 1] for place in lost)
        msg = f"{events:,} events happened while {names} were in force, whose files were vacuumed; {remedy}"
        raise NotFoundError(msg, releases=[known[place].release_id for place in lost])


def _write_span(warehouse: Warehouse, events: pl.LazyFrame, known: Sequence[Release], place: int, writer: pq.ParquetWriter) -> Span:
    """Write the events in the time of ``known[place]``, or before the first release for -1."""
    if place >= 0:
        events = events.filter(pl.col("ts") >= known[place].created_at)
    if place + 1 < len(known):
        events = events.filter(pl.col("ts") < known[place + 1].created_at)
    release = known[place] if place >= 0 else None
    with_sids = _without_sids(events) if release is None else _with_sids(warehouse, events, release)
    rows = with_sids.sort(*("ts", "user_id", "item_id", "event")).collect()
    writer.write_table(rows.select(SCHEMA.names).to_arrow().cast(SCHEMA))
    return Span(
        release_id=release.release_id if release else None,
        generation=release.generation if release else None,
        num_events=len(rows),
        num_with_sid=len(rows) - rows["sid"].null_count(),
    )


def _without_sids(events: pl.LazyFrame) -> pl.LazyFrame:
    none = [pl.lit(None, pl.String).alias(name) for name in ("release_id", "generation", "sid")]
    return events.with_columns(*none, pl.lit(None, pl.List(pl.Int32)).alias("codes"))


def _with_sids(warehouse: Warehouse, events: pl.LazyFrame, release: Release) -> pl.LazyFrame:
    with reading(warehouse, release.release_id):
        sids = warehouse.scan("semantic_ids", version=release.tables["semantic_ids"])
        of_release = sids.filter(pl.col("generation") == release.generation).select("item_id", "sid", "codes")
        joined = events.join(of_release, on="item_id", how="left").collect()  # before the lease ends
    return joined.lazy().with_columns(
        pl.lit(release.release_id).alias("release_id"), pl.lit(release.generation).alias("generation")
    )
