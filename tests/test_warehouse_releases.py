"""Releases: what is published was re-read first, in one commit, by one publisher."""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from sidlake.errors import GateFailed, LawBroken, NotFoundError, ReleaseConflict, StorageError
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.releases import content_hash, current, get, history, publish, rollback
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("warehouse_sample.py"))))


@pytest.fixture
def warehouse(tmp_path):
    return Warehouse.create_or_open(tmp_path)


def _publish(warehouse, parent=None, **content):
    return publish(warehouse, SAMPLE.draft(SAMPLE.write(warehouse, **content)), expected_parent=parent)


def test_a_published_release_is_read_back_as_it_was_returned(warehouse):
    release = _publish(warehouse)
    assert (release.release_id, release.parent, release.status) == ("r000001", None, "published")
    assert history(warehouse) == [release]
    assert current(warehouse) == get(warehouse) == get(warehouse, "r000001") == release
    assert release.content_hash == content_hash(warehouse, release.tables, "g1")
    assert release.inputs == {"shop": {"rows": 12}}


def test_before_the_first_publish_there_is_no_current_release(warehouse):
    assert (history(warehouse), current(warehouse)) == ([], None)
    with pytest.raises(NotFoundError, match="nothing has been published"):
        get(warehouse)


def test_an_unknown_release_is_answered_with_the_known_ones(warehouse):
    _publish(warehouse)
    with pytest.raises(NotFoundError, match="r000001") as failure:
        get(warehouse, "r000009")
    assert failure.value.details["known"] == ["r000001"]


def test_an_old_release_still_names_its_rows_after_a_new_one(warehouse):
    first = _publish(warehouse, count=12)
    second = _publish(warehouse, "r000001", count=15)
    counts = [warehouse.read("semantic_ids", version=release.tables["semantic_ids"]).num_rows for release in (first, second)]
    assert counts == [12, 15]
    assert second.parent == "r000001"


def test_equal_content_has_an_equal_hash_in_another_place_at_another_time(warehouse, tmp_path):
    elsewhere = Warehouse.create_or_open(tmp_path / "elsewhere")
    assert _publish(warehouse).content_hash == _publish(elsewhere).content_hash
    assert _publish(warehouse, "r000001", count=13).content_hash != get(warehouse, "r000001").content_hash


def test_a_release_that_another_run_published_meanwhile_is_a_conflict(warehouse):
    _publish(warehouse)
    tables = SAMPLE.write(warehouse, 14)
    for stale in (None, "r000009"):
        with pytest.raises(ReleaseConflict, match="latest is now r000001"):
            publish(warehouse, SAMPLE.draft(tables), expected_parent=stale)
    assert len(history(warehouse)) == 1


def test_a_gate_that_refuses_in_storage_stops_the_publish(warehouse):
    tables = SAMPLE.write(warehouse)
    tables["sid_quality"] = warehouse.overwrite("sid_quality", SAMPLE.quality("refuse", 0.9), run_id="run")
    with pytest.raises(GateFailed, match=r"collision_rate is 0\.9, the limit is 0\.5") as failure:
        publish(warehouse, SAMPLE.draft(tables), expected_parent=None)
    assert failure.value.details["failing"][0]["metric"] == "collision_rate"
    assert history(warehouse) == []


def test_a_release_whose_quality_was_not_judged_is_refused(warehouse):
    tables = SAMPLE.write(warehouse)
    version = warehouse.overwrite("sid_quality", CONTRACTS["sid_quality"].empty_table(), run_id="run")
    with pytest.raises(GateFailed, match="no rows"):
        publish(warehouse, SAMPLE.draft({**tables, "sid_quality": version}), expected_parent=None)
    with pytest.raises(LawBroken, match="sid_quality"):
        publish(warehouse, SAMPLE.draft({k: v for k, v in tables.items() if k != "sid_quality"}), expected_parent=None)


def test_a_duplicated_sid_smuggled_into_a_committed_file_is_refused(warehouse):
    tables = SAMPLE.write(warehouse)
    doubled = SAMPLE.semantic_ids(["item '000\""], SAMPLE.codes_of(1, skip=11))
    tables["semantic_ids"] = warehouse.append("semantic_ids", doubled, run_id="run")
    with pytest.raises(LawBroken, match="every SID belongs to one item"):
        publish(warehouse, SAMPLE.draft(tables), expected_parent=None)
    assert history(warehouse) == []


def test_a_published_sid_may_not_move_even_after_another_generation(warehouse):
    _publish(warehouse)
    other = SAMPLE.draft(SAMPLE.write(warehouse, skip=1, generation="g2"), generation="g2")
    publish(warehouse, other, expected_parent="r000001")
    with pytest.raises(LawBroken, match="no SID published in r000001 moved"):
        _publish(warehouse, "r000002", skip=2)


def test_a_rollback_names_the_older_versions_in_a_new_release(warehouse):
    first = _publish(warehouse)
    _publish(warehouse, "r000001", count=15)
    back = rollback(warehouse, "r000001", "fifteen were too many")
    assert (back.release_id, back.parent, back.status, back.reason) == ("r000003", "r000002", "rollback", "fifteen were too many")
    assert (back.tables, back.content_hash, back.generation) == (first.tables, first.content_hash, first.generation)
    assert current(warehouse) == back


def test_a_rollback_to_files_that_changed_since_is_refused(warehouse):
    release = _publish(warehouse)
    path = Path(warehouse.files("items", version=release.tables["items"])[0])
    entry = Path(warehouse.table_url("items")) / "_delta_log" / f"{release.tables['items']:020d}.json"
    other = Warehouse.create_or_open(warehouse.root / "other")
    other.overwrite("items", SAMPLE.items(SAMPLE.item_ids(12), title="swapped"), run_id="run")
    swapped = Path(other.files("items")[0])
    entry.write_text(entry.read_text().replace(f'"size":{path.stat().st_size}', f'"size":{swapped.stat().st_size}'))
    path.write_bytes(swapped.read_bytes())
    with pytest.raises(StorageError, match=f"not as they were published: {re.escape(str(path))}"):
        rollback(warehouse, "r000001", "test")
    warehouse.overwrite("file_digests", CONTRACTS["file_digests"].empty_table(), run_id="run")  # as of a release from before them
    with pytest.raises(StorageError, match="content hash"):
        rollback(warehouse, "r000001", "test")
    assert len(history(warehouse)) == 1


def test_release_ids_sort_as_numbers(warehouse):
    release = _publish(warehouse)
    rows = warehouse.read("releases").to_pylist()
    jump = {**rows[0], "release_id": "r1000000", "parent": "r000001"}
    warehouse.append("releases", pa.Table.from_pylist([jump], CONTRACTS["releases"]), run_id="run")
    tables = SAMPLE.write(warehouse, 13)
    assert publish(warehouse, SAMPLE.draft(tables), expected_parent="r1000000").release_id == "r1000001"
    assert history(warehouse)[0] == release


def test_a_draft_names_known_tables_and_holds_json(warehouse):
    with pytest.raises(ValueError, match="itemz"):
        SAMPLE.draft({"itemz": 0})
    with pytest.raises(ValueError, match="Out of range float"):
        dataclasses.replace(SAMPLE.draft({"items": 0}), metrics={"x": float("nan")})


def test_every_field_of_a_draft_reaches_the_stored_row(warehouse):
    draft = SAMPLE.draft(SAMPLE.write(warehouse))
    publish(warehouse, draft, expected_parent=None)
    row = warehouse.read("releases").to_pylist()[0]
    for field in dataclasses.fields(draft):
        if field.name != "run_id":
            value = getattr(draft, field.name)
            assert (json.loads(row[field.name]) if isinstance(value, dict) else row[field.name]) == value
