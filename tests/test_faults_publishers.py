"""Publishers at once: the benchmark, briefly; of conflicting releases one wins, no release holds tables of two runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import warehouse_sample as sample

from sidlake.errors import ReleaseConflict
from sidlake.warehouse import tables
from sidlake.warehouse.releases import publish
from sidlake.warehouse.tables import Warehouse

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "publishers.py"


@pytest.mark.slow
def test_two_publishers_at_once_publish_one_after_the_other_with_and_without_a_common_lock():
    command = [sys.executable, str(FILE), "--rounds", "2", "--processes", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for case in json.loads(done.stdout)["cases"]:
        assert case["releases"] == 4, case
        assert sum(case["refused"].values()) == case["retries"] >= 1
        assert set(case["refused"]) <= {"WarehouseBusy", "ReleaseConflict"}


@pytest.fixture
def machines(tmp_path):
    """Two machines that mount one folder of tables and do not see each other's locks, and one release."""
    common = Warehouse.create_or_open(tmp_path / "common")
    publish(common, sample.draft(sample.write(common)), expected_parent=None)
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        root.mkdir()
        (root / "delta").symlink_to(common.root / "delta")
    return [Warehouse(root) for root in roots]


def test_a_machine_without_the_lock_learns_from_the_commit_that_another_has_published(machines):
    one, two = machines
    written = sample.write(one, title="one")
    publish(two, sample.draft(sample.write(two, title="two")), expected_parent="r000001")
    with pytest.raises(ReleaseConflict, match="the latest is now r000002; run again to build on r000002"):
        publish(one, sample.draft(written), expected_parent="r000001")


def test_a_write_returns_its_own_version_though_another_machine_has_written_since(machines, monkeypatch):
    one, two = machines
    find_version = tables.version_of

    def late(location, url, write_id):
        monkeypatch.undo()
        two.overwrite("items", sample.items(sample.item_ids(12), title="two"), run_id="two")
        return find_version(location, url, write_id)

    monkeypatch.setattr(tables, "version_of", late)
    version = one.overwrite("items", sample.items(sample.item_ids(12), title="one"), run_id="one")
    assert version == one.version("items") - 1
    assert {row["title"].split()[0] for row in one.read("items", version=version).to_pylist()} == {"one"}
