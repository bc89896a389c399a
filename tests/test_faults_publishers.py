"""Publishers at once: the benchmark, briefly; of conflicting releases one wins, no release holds tables of two runs."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import warehouse_sample as sample

from sidlake.errors import ReleaseConflict
from sidlake.warehouse import commits, tables
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


@pytest.fixture
def meanwhile(machines, monkeypatch):
    """What makes the second machine add an item to `items` in the moment before the first one commits."""
    _, two = machines
    make = commits.commit_of

    def plan():
        def late(run_id, write_id, **settings):
            for module in (tables, commits):
                monkeypatch.setattr(module, "commit_of", make)
            two.append("items", sample.items(["of two"]), run_id="two")
            return make(run_id, write_id, **settings)

        for module in (tables, commits):
            monkeypatch.setattr(module, "commit_of", late)

    return plan


def staged(warehouse, rows):
    file = warehouse.staging("one") / "rows.parquet"
    pq.write_table(rows, file)
    return [file]


WRITES = {
    "overwrite": lambda one: one.overwrite("items", sample.items(["of one"]), run_id="one"),
    "append_at": lambda one: one.append_at("items", sample.items(["of one"]), head=0, run_id="one"),
    "append_files": lambda one: one.append_files("items", staged(one, sample.items(["of one"])), run_id="one"),
    "extend": lambda one: one.extend("items", 0, sample.items(["of one"]), run_id="one"),
    "restore": lambda one: one.restore("items", 0, run_id="one"),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_into_which_another_machine_commits_is_refused_and_mixes_no_rows(machines, meanwhile, name):
    one, _ = machines
    if name == "restore":
        one.overwrite("items", sample.items(["of one"]), run_id="one")
    before = one.version("items")
    meanwhile()
    with pytest.raises(ReleaseConflict, match=f"table items moved from version {before} to {before + 1}"):
        WRITES[name](one)
    assert one.version("items") == before + 1
    assert one.num_rows("items") == one.num_rows("items", before) + 1


def test_what_others_wrote_meanwhile_is_set_aside_and_their_versions_stay(machines):
    one, two = machines
    theirs = two.append("items", sample.items(["of two"]), run_id="two")
    mine = one.extend("items", 0, sample.items(["of one"]), run_id="one")
    added = [set(one.read("items", version=v)["item_id"].to_pylist()) - set(sample.item_ids(12)) for v in (theirs, mine)]
    assert added == [{"of two"}, {"of one"}]


def test_files_made_for_an_older_head_are_refused(machines):
    one, two = machines
    head = one.version("items")
    two.append("items", sample.items(["of two"]), run_id="two")
    for stale in (head, None):
        with pytest.raises(ReleaseConflict, match="run again to build on it"):
            one.append_files("items", staged(one, sample.items(["of one"])), head=stale, run_id="one")
    assert one.append_files("items", staged(one, sample.items(["of one"])), head=head + 1, run_id="one") == head + 2


def test_rows_that_stand_by_themselves_follow_those_of_another_machine_and_learn_their_version(machines, meanwhile):
    one, two = machines
    meanwhile()
    version = one.append("items", sample.items(["of one"]), run_id="one")
    assert version == one.version("items") == 2
    two.append("items", sample.items(["of two again"]), run_id="two")
    assert one.num_rows("items", version) == 14
