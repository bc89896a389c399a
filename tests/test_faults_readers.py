"""Long readers, and readers of what a vacuum or a killed run has left behind."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import warehouse_sample as sample

from sidlake.errors import NotFoundError
from sidlake.reports.report import report_of
from sidlake.warehouse.catalog import is_current, write_catalog
from sidlake.warehouse.keep.retention import Retention
from sidlake.warehouse.keep.vacuum import vacuum
from sidlake.warehouse.releases import content_hash, current, get, publish
from sidlake.warehouse.tables import Warehouse

READER = """
import json, sys, time
from sidlake.warehouse.keep.leases import reading
from sidlake.warehouse.releases import content_hash
from sidlake.warehouse.tables import Warehouse
warehouse, reads, wrong = Warehouse(sys.argv[1]), 0, 0
with reading(warehouse, "r000001") as release:
    print("reading", flush=True)
    import select
    while not select.select([sys.stdin], [], [], 0)[0]:
        titles = {row["title"].split()[0] for row in warehouse.read("items", version=release.tables["items"]).to_pylist()}
        wrong += titles != {"first"}
        wrong += content_hash(warehouse, release.tables, release.generation) != release.content_hash
        reads += 1
print(json.dumps([reads, wrong]), flush=True)
"""
ALL_BUT_ONE = Retention(keep=1, days=None)


def published(warehouse, title):
    latest = current(warehouse)
    draft = sample.draft(sample.write(warehouse, title=title))
    return publish(warehouse, draft, expected_parent=latest.release_id if latest else None)


@pytest.fixture
def warehouse(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    published(warehouse, "first")
    return warehouse


def vacuumed(warehouse):
    return vacuum(warehouse, ALL_BUT_ONE, grace=timedelta(0)).unreadable


def test_a_long_reader_sees_its_release_unchanged_while_others_publish_and_vacuum(warehouse):
    command = [sys.executable, "-c", READER, str(warehouse.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "reading\n"
        for number in range(4):
            published(warehouse, f"later{number}")
            assert "r000001" not in vacuumed(warehouse)
        told, _ = reader.communicate("stop\n")
    reads, wrong = json.loads(told)
    assert reads >= 2
    assert wrong == 0
    assert vacuumed(warehouse) == ["r000001"]
    with pytest.raises(NotFoundError, match="vacuumed"):
        get(warehouse, "r000001")


def test_a_release_is_explained_though_those_before_it_were_vacuumed(warehouse):
    published(warehouse, "second")
    assert vacuumed(warehouse) == ["r000001"]
    report = report_of(warehouse)
    assert report.release.release_id == "r000002"
    assert report.comparison is None


def test_a_vacuum_takes_no_file_of_what_is_kept(warehouse):
    release = published(warehouse, "second")
    vacuumed(warehouse)
    assert content_hash(warehouse, release.tables, release.generation) == release.content_hash


def test_a_catalogue_that_a_killed_run_left_behind_is_known_to_be_old(warehouse):
    assert not is_current(warehouse)
    write_catalog(warehouse)
    assert is_current(warehouse)
    published(warehouse, "second")
    assert not is_current(warehouse)
    assert Path(warehouse.root, "catalog.duckdb").exists()
