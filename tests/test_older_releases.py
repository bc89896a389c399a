"""Releases that earlier versions of the project made stay readable: `data/release-<version>` is what that version wrote.

One folder per version, made by it from the small shop of `assets_sample` and never changed: two releases of one generation, without
the catalogue and the encoders' artifacts. Whoever changes a contract adds one for the version before.
"""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path

import pyarrow as pa
import pytest

from sidlake.warehouse.catalog import query
from sidlake.warehouse.content import content_hash
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.diff import diff
from sidlake.warehouse.keep.pins import pin
from sidlake.warehouse.keep.retention import Retention
from sidlake.warehouse.keep.vacuum import vacuum
from sidlake.warehouse.laws import verify
from sidlake.warehouse.lineage import lineage
from sidlake.warehouse.releases import ReleaseDraft, get, history, publish, rollback
from sidlake.warehouse.tables import Warehouse

STORED = sorted(Path(__file__).with_name("data").glob("release-*"))


@pytest.fixture(params=STORED, ids=lambda folder: folder.name)
def warehouse(request, tmp_path):
    shutil.copytree(request.param, tmp_path / "lake")
    return Warehouse.create_or_open(tmp_path / "lake")


def test_an_older_release_is_read_whole_and_still_has_its_hash(warehouse):
    first, second = history(warehouse)
    for release in (first, second):
        verify(warehouse, release.tables, generation=release.generation)
        assert content_hash(warehouse, release.tables, release.generation, like=release.content_hash) == release.content_hash
    assert get(warehouse, "r000001") == first
    counts = [warehouse.read("semantic_ids", version=release.tables["semantic_ids"]).num_rows for release in (first, second)]
    assert counts == [26, 30]


def test_the_catalogue_shows_an_older_release_with_the_columns_of_today(warehouse):
    for table, schema in CONTRACTS.items():
        assert query(warehouse, f"SELECT * FROM {table} LIMIT 0").schema.names == schema.names
    assert query(warehouse, "SELECT count(*) AS n FROM items_with_sids").to_pylist() == [{"n": 30}]


def test_older_releases_are_compared_told_pinned_and_rolled_back_to(warehouse):
    found = diff(warehouse, "r000001", "r000002")
    assert (found.items.added, found.items.retired, found.sids.kept, found.sids.moved) == (4, 0, 26, 0)
    assert lineage(warehouse, "r000002")["parents"] == ["r000001"]
    pin(warehouse, "prod", "r000001")
    back = rollback(warehouse, "prod", "as it was")
    assert (back.release_id, back.content_hash) == ("r000003", get(warehouse, "r000001").content_hash)
    assert [release.release_id for release in history(warehouse)] == ["r000001", "r000002", "r000003"]
    plan = vacuum(warehouse, Retention(keep=1, days=None))
    assert plan.unreadable == []  # r000001 is current again, r000002 what the tables' newest versions hold


@pytest.mark.parametrize("changed", [False, True])
def test_a_release_of_today_is_compared_with_an_older_one_though_their_hashes_are_of_two_kinds(warehouse, changed):
    second = get(warehouse, "r000002")
    again = warehouse.read("items", version=second.tables["items"])
    if changed:
        again = again.set_column(1, "title", pa.array(["other"] * again.num_rows))
    tables = {**second.tables, "items": warehouse.overwrite("items", again, run_id="run")}
    known = {field.name: getattr(second, field.name) for field in fields(ReleaseDraft) if field.name != "run_id"}
    draft = replace(ReleaseDraft(run_id="run", **known), tables=tables)
    assert publish(warehouse, draft, expected_parent="r000002").content_hash.startswith("v2-")
    assert diff(warehouse, "r000002", "r000003").same_content is not changed
