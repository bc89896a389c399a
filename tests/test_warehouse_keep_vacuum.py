"""Vacuum: what it keeps, what it frees, in which order, and that readers never find half a release."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from sidlake.errors import ArtifactError, NotFoundError, WarehouseBusy
from sidlake.pipelines.run_state import RunState, load_state, save_state
from sidlake.warehouse.catalog import query, write_catalog
from sidlake.warehouse.keep.leases import reading
from sidlake.warehouse.keep.pins import pin
from sidlake.warehouse.keep.retention import Retention, live_releases
from sidlake.warehouse.keep.vacuum import vacuum
from sidlake.warehouse.keep.vacuumed import vacuumed
from sidlake.warehouse.laws import verify
from sidlake.warehouse.releases import find, get, history, publish, readable, rollback
from sidlake.warehouse.tables import TABLES, Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("warehouse_sample.py"))))
LAST = Retention(keep=1, days=None)
NOW = timedelta(0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four releases of 12 to 15 items; the first two of g1, the others of g2."""
    warehouse = Warehouse.create_or_open(tmp_path_factory.mktemp("made"))
    parent = None
    for number, (count, generation) in enumerate([(12, "g0001"), (13, "g0001"), (14, "g0002"), (15, "g0002")], 1):
        tables = SAMPLE.write(warehouse, count, generation=generation, skip=int(generation == "g0002"))
        publish(warehouse, SAMPLE.draft(tables, generation=generation), expected_parent=parent)
        parent = f"r{number:06d}"
    for generation in ("g0001", "g0002", "g0003"):
        (warehouse.artifacts_dir / generation).mkdir()
        (warehouse.artifacts_dir / generation / "codebook.safetensors").write_bytes(b"codes")
    return warehouse


@pytest.fixture
def warehouse(made, tmp_path):
    shutil.copytree(made.root, tmp_path / "lake")
    return Warehouse(tmp_path / "lake")


def _checkpoint(warehouse, release):
    folder = warehouse.checkpoints_dir / f"{release.release_id}-abc"
    folder.mkdir()
    about = {"release_id": release.release_id, "generation": release.generation, "codebook_hash": release.codebook_hash}
    (folder / "checkpoint.json").write_text(json.dumps(about))


def _check(warehouse, release_ids):
    for release_id in release_ids:
        release = get(warehouse, release_id)
        verify(warehouse, release.tables, generation=release.generation)


def _num_files(warehouse):
    return len([path for path in (warehouse.root / "delta").rglob("*.parquet") if "_delta_log" not in path.parts])


def test_a_dry_run_says_what_goes_and_takes_nothing(warehouse):
    before = _num_files(warehouse)
    plan = vacuum(warehouse, LAST, dry_run=True)
    assert (list(plan.kept), plan.unreadable) == (["r000004"], ["r000001", "r000002", "r000003"])
    assert (_num_files(warehouse), vacuumed(warehouse)) == (before, {})
    assert vacuum(warehouse, LAST) == replace(plan, dry_run=False)
    assert _num_files(warehouse) == before - sum(plan.files.values()) + 1  # the table that records it


def test_what_was_vacuumed_is_refused_by_name_and_the_rest_reads_as_before(warehouse):
    plan = vacuum(warehouse, LAST)
    assert plan.bytes["items"] > 0
    with pytest.raises(NotFoundError, match=r"r000001 was vacuumed on .* \(kept: the last 1, pins, checkpoints\)"):
        get(warehouse, "r000001")
    with pytest.raises(NotFoundError, match="vacuumed"):
        rollback(warehouse, "r000002", "back")
    with pytest.raises(NotFoundError, match="vacuumed"):
        pin(warehouse, "prod", "r000003")
    assert [release.release_id for release in readable(warehouse)] == ["r000004"]
    assert (len(history(warehouse)), find(warehouse, "r000001").metrics) == (4, {"collision_rate": 0.1})
    _check(warehouse, ["r000004"])


def test_the_catalogue_leaves_vacuumed_releases_out_and_says_so_when_asked(warehouse):
    write_catalog(warehouse)
    vacuum(warehouse, Retention(keep=2, days=None))
    assert query(warehouse, "SELECT count(*) AS n FROM semantic_ids_at('r000003')").to_pylist() == [{"n": 14}]
    assert query(warehouse, "FROM sid_changes").num_rows == 0
    assert query(warehouse, "SELECT release_id FROM vacuumed ORDER BY 1")["release_id"].to_pylist() == ["r000001", "r000002"]
    with pytest.raises(ValueError, match="r000001 was vacuumed"):
        query(warehouse, "SELECT max(sid) FROM semantic_ids_at('r000001')")


def test_pins_checkpoints_and_youth_keep_a_release_alive(warehouse):
    pin(warehouse, "prod", "r000001")
    _checkpoint(warehouse, get(warehouse, "r000002"))
    assert live_releases(warehouse, LAST) == {
        "r000001": "pinned as prod",
        "r000002": "checkpoint r000002-abc",
        "r000004": "current; among the last 1",
    }
    assert list(live_releases(warehouse, Retention(keep=None, days=1.0))) == [f"r00000{n}" for n in (1, 2, 3, 4)]
    later = datetime.now(UTC) + timedelta(days=2)
    assert list(live_releases(warehouse, Retention(keep=None, days=1.0), now=later)) == ["r000001", "r000002", "r000004"]
    assert vacuum(warehouse, LAST).unreadable == ["r000003"]
    _check(warehouse, ["prod", "r000002", "current"])


def test_a_release_whose_files_all_live_on_in_another_stays_readable(warehouse):
    rollback(warehouse, "r000001", "back")
    plan = vacuum(warehouse, LAST)
    assert (list(plan.kept), plan.unreadable) == (["r000005"], ["r000002", "r000003"])
    _check(warehouse, ["r000001", "r000004", "r000005"])  # r000004 is what the tables' newest versions hold


def test_heads_stay_though_no_release_names_them(warehouse):
    version = warehouse.overwrite("items", SAMPLE.items(SAMPLE.item_ids(20)), run_id="unfinished")
    vacuum(warehouse, LAST, grace=NOW)
    assert warehouse.read("items", version=version).num_rows == 20


def test_versions_that_an_unfinished_run_has_in_force_stay_until_it_is_stale(warehouse):
    version = warehouse.overwrite("items", SAMPLE.items(SAMPLE.item_ids(20)), run_id="a-run")
    warehouse.overwrite("items", SAMPLE.items(SAMPLE.item_ids(21)), run_id="a-run")
    (warehouse.staging("a-run") / "input.parquet").touch()
    save_state(warehouse, "a-run", RunState(now=datetime.now(UTC), tables={"items": version}, generation="g0003"))
    vacuum(warehouse, LAST)
    assert warehouse.read("items", version=version).num_rows == 20
    assert (warehouse.artifacts_dir / "g0003").is_dir()
    plan = vacuum(warehouse, LAST, grace=NOW, now=datetime.now(UTC) + timedelta(seconds=1))
    assert (plan.files["items"], plan.files["runs"], plan.files["states"]) == (1, 1, 1)
    assert list((warehouse.root / "runs").iterdir()) == []
    assert load_state(warehouse, "a-run") is None


def test_orphans_go_after_the_grace_period_only(warehouse):
    orphan = warehouse.root / "delta" / "items" / "part-left-by-a-killed-run.parquet"
    orphan.write_bytes(b"12345")
    keep_all = Retention(keep=9, days=None)
    assert vacuum(warehouse, keep_all).files == {}
    os.utime(orphan, (1e9, 1e9))
    plan = vacuum(warehouse, keep_all)
    assert (plan.files, plan.bytes, orphan.exists()) == ({"items": 1}, {"items": 5}, False)


def test_codebooks_go_with_the_last_release_or_checkpoint_of_their_generation(warehouse):
    _checkpoint(warehouse, get(warehouse, "r000002"))
    soon = datetime.now(UTC) + timedelta(seconds=1)
    vacuum(warehouse, LAST, grace=NOW, now=soon)
    assert sorted(path.name for path in warehouse.artifacts_dir.iterdir()) == ["g0001", "g0002"]
    shutil.rmtree(warehouse.checkpoints_dir / "r000002-abc")
    vacuum(warehouse, LAST, grace=NOW, now=soon)
    assert sorted(path.name for path in warehouse.artifacts_dir.iterdir()) == ["g0002"]


def test_a_checkpoint_that_does_not_say_what_it_knows_stops_the_vacuum(warehouse):
    (warehouse.checkpoints_dir / "broken").mkdir()
    with pytest.raises(ArtifactError, match="broken"):
        vacuum(warehouse, LAST)
    assert len(readable(warehouse)) == 4


def test_a_release_that_somebody_reads_outlives_the_vacuum(warehouse):
    with reading(warehouse, "r000001") as release:
        plan = vacuum(warehouse, LAST)  # a lease is a lock on an open file: it holds against the same process too
        assert (plan.kept["r000001"], plan.unreadable) == ("being read", ["r000002", "r000003"])
        verify(warehouse, release.tables, generation=release.generation)
    assert vacuum(warehouse, LAST).unreadable == ["r000001"]
    with pytest.raises(NotFoundError, match="vacuumed"), reading(warehouse, "r000001"):
        pass


def test_a_vacuum_waits_for_no_writer(warehouse):
    with warehouse.writing("refresh-1"), pytest.raises(WarehouseBusy, match="refresh-1"):
        vacuum(warehouse, LAST)


KILLED = """
import os, signal, sys
from sidlake.warehouse.keep import vacuum as module
from sidlake.warehouse.keep.retention import Retention
from sidlake.warehouse.tables import Warehouse
at, name = int(sys.argv[2]), sys.argv[3]
real = getattr(module, name)
if name == "_delete":
    def killed(warehouse, files):
        real(warehouse, files[:at])
        os.kill(os.getpid(), signal.SIGKILL)
else:
    def killed(*arguments, **named):
        real(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
setattr(module, name, killed)
module.vacuum(Warehouse(sys.argv[1]), Retention(keep=1, days=None))
"""


@pytest.mark.parametrize(("name", "at"), [("record_vacuumed", 1), ("_delete", 7)])
def test_killed_at_any_step_readers_see_whole_releases_and_the_next_vacuum_finishes(warehouse, name, at):
    write_catalog(warehouse)
    done = subprocess.run([sys.executable, "-c", KILLED, str(warehouse.root), str(at), name], check=False)
    assert done.returncode == -signal.SIGKILL
    left = [release.release_id for release in readable(warehouse)]
    assert left == ["r000004"]
    _check(warehouse, left)
    assert query(warehouse, "SELECT count(*) AS n FROM semantic_ids").to_pylist() == [{"n": 15}]
    vacuum(warehouse, LAST)
    live = sum(len(warehouse.files(table)) for table in TABLES if warehouse.exists(table))
    assert _num_files(warehouse) == live
    assert vacuum(warehouse, LAST).files == {}


@pytest.mark.parametrize("bad", [{"keep": 0}, {"days": -1.0}, {"days": float("nan")}])
def test_a_retention_that_keeps_less_than_the_current_release_is_refused(bad):
    with pytest.raises(ValueError, match="keep must be >= 1"):
        Retention(**bad)
