"""Training frames of a time: against a brute force over releases, new generations, rollbacks and times on their borders."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import product

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import warehouse_sample as sample
from typer.testing import CliRunner

from sidlake.cli.app import app
from sidlake.errors import ContractError, NotFoundError
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.holds import lift
from sidlake.warehouse.keep.retention import Retention
from sidlake.warehouse.keep.vacuum import vacuum
from sidlake.warehouse.outlets.frames import SCHEMA, write_frame
from sidlake.warehouse.releases import current, history, publish, rollback
from sidlake.warehouse.tables import Warehouse

TICK = timedelta(microseconds=1)
LATER = datetime(2126, 1, 1, tzinfo=UTC)
"""In the time of the last release, whenever that was."""


def published(warehouse, count, *, events=None, **changes):
    """Publish `count` items, with `events` instead of the sample's, beside SIDs of another generation, and return the release."""
    latest = current(warehouse)
    tables = sample.write(warehouse, count, **changes)
    others = sample.semantic_ids(sample.item_ids(15), sample.codes_of(15, skip=40), generation="g0")
    tables["semantic_ids"] = warehouse.append("semantic_ids", others, run_id="run", num_levels=3)
    if events is not None:
        tables["interactions"] = warehouse.overwrite("interactions", events, run_id="run")
    draft = sample.draft(tables, generation=changes.get("generation", "g1"))
    return publish(warehouse, draft, expected_parent=latest.release_id if latest else None)


def events_at(times, names):
    """Return interactions of every name at each of these times."""
    rows = [
        {"user_id": f"u{n % 3}", "item_id": name, "ts": ts, "event": "purchase", "weight": 1.0, "day": f"{ts:%Y-%m-%d}"}
        for n, (ts, name) in enumerate(product(sorted(set(times)), names))
    ]
    return pa.Table.from_pylist(rows, CONTRACTS["interactions"])


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Releases of two generations with a rollback between them; the events of the last one lie on and around their borders."""
    warehouse = Warehouse.create_or_open(tmp_path_factory.mktemp("frames") / "lake")
    published(warehouse, 12)
    published(warehouse, 15)
    published(warehouse, 14, generation="g2", skip=3)
    rollback(warehouse, "r000001", "test")
    lift(warehouse, current(warehouse), reason="test")
    borders = [one.created_at for one in history(warehouse)]
    times = [border + step * TICK for border, step in product(borders, (-1, 0, 1))]
    times += [borders[0] - timedelta(days=400), LATER]
    published(warehouse, 15, generation="g2", skip=3, events=events_at(times, sample.item_ids(15)))
    return warehouse


def brute_force(warehouse, at=None, since=None):
    """Return the rows of the frame, each release's SIDs looked up one by one."""
    releases = [one for one in history(warehouse) if at is None or one.created_at <= at]
    sids = {
        one.release_id: {
            row["item_id"]: (row["sid"], row["codes"])
            for row in warehouse.read("semantic_ids", version=one.tables["semantic_ids"]).to_pylist()
            if row["generation"] == one.generation
        }
        for one in releases
    }
    rows = []
    for row in warehouse.read("interactions", version=releases[-1].tables["interactions"]).to_pylist():
        if (at is None or row["ts"] <= at) and (since is None or row["ts"] >= since):
            force = next((one for one in reversed(releases) if one.created_at <= row["ts"]), None)
            sid, codes = sids[force.release_id].get(row["item_id"], (None, None)) if force else (None, None)
            row.pop("day")
            about = (
                {"release_id": force.release_id, "generation": force.generation}
                if force
                else dict.fromkeys(("release_id", "generation"))
            )
            rows.append(row | about | {"sid": sid, "codes": codes})
    return sorted(rows, key=lambda row: (row["ts"], row["user_id"], row["item_id"], row["event"]))


def test_every_event_has_the_sid_of_the_release_in_force_when_it_happened(lake, tmp_path):
    made = write_frame(lake, tmp_path / "frame.parquet")
    table = pq.read_table(tmp_path / "frame.parquet")
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == (expected := brute_force(lake))
    assert {row["release_id"] for row in expected} >= {None, "r000001", "r000002", "r000003", "r000004"}
    assert {(row["release_id"], row["sid"] is None) for row in expected} >= {("r000001", True), ("r000003", False)}
    assert (made.num_events, made.num_with_sid) == (len(expected), sum(row["sid"] is not None for row in expected))
    assert {span.release_id: span.num_events for span in made.spans} == {
        name: sum(row["release_id"] == name for row in expected) for name in {row["release_id"] for row in expected}
    }


def test_a_frame_of_any_time_holds_nothing_that_came_later(lake, tmp_path):
    releases = history(lake)
    times = [one.created_at + step * TICK for one, step in product(releases, (0, 1))] + [LATER - TICK, LATER]
    for number, at in enumerate(times):
        write_frame(lake, tmp_path / f"{number}.parquet", at=at, since=releases[0].created_at)
        assert pq.read_table(tmp_path / f"{number}.parquet").to_pylist() == brute_force(lake, at, releases[0].created_at)


def test_the_same_time_gives_the_same_bytes_after_more_releases(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path / "lake")
    published(warehouse, 12)
    at = published(warehouse, 15).created_at
    write_frame(warehouse, tmp_path / "before.parquet", at=at)
    published(warehouse, 10, generation="g2", skip=7)
    write_frame(warehouse, tmp_path / "after.parquet", at=at)
    assert (tmp_path / "before.parquet").read_bytes() == (tmp_path / "after.parquet").read_bytes()


def test_a_time_before_the_first_release_and_a_file_that_is_there_are_refused(lake, tmp_path):
    with pytest.raises(NotFoundError, match=r"no release of .* was in force at 2000-01-01"):
        write_frame(lake, tmp_path / "frame.parquet", at=datetime(2000, 1, 1, tzinfo=UTC))
    (tmp_path / "frame.parquet").write_text("mine")
    with pytest.raises(ContractError, match="is there already"):
        write_frame(lake, tmp_path / "frame.parquet")
    assert (tmp_path / "frame.parquet").read_text() == "mine"


def test_events_in_the_time_of_a_vacuumed_release_are_refused_with_a_time_to_begin_at(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path / "lake")
    first = published(warehouse, 12)
    second = published(warehouse, 13)
    events = events_at([first.created_at, second.created_at], sample.item_ids(14))
    published(warehouse, 14, events=events)
    vacuum(warehouse, Retention(keep=2, days=None))
    with pytest.raises(
        NotFoundError, match=f"while r000001 were in force.*--since {second.created_at.isoformat()}".replace("+", r"\+")
    ):
        write_frame(warehouse, tmp_path / "frame.parquet")
    assert not (tmp_path / "frame.parquet").exists()
    made = write_frame(warehouse, tmp_path / "frame.parquet", since=second.created_at)
    assert [span.release_id for span in made.spans] == ["r000002"]


def test_the_command_says_what_has_no_sid_and_why(lake, tmp_path):
    def run(*arguments, code=0):
        result = CliRunner().invoke(app, ["frame", *arguments, "--warehouse", str(lake.root)], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.output

    text = run(str(tmp_path / "a.parquet"))
    assert "with a SID of their time" in text
    assert "are older than the first release" in text
    assert "are of items that the release in force did not have" in text
    found = json.loads(run(str(tmp_path / "b.parquet"), "--json", "--at", history(lake)[1].created_at.isoformat()))
    assert found["events_of"] == "r000002"
    assert "is no time" in run(str(tmp_path / "c.parquet"), "--at", "yesterday", code=2)
