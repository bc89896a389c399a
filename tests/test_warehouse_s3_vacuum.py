"""Vacuum and reading leases in an object store: several machines share the tables, and neither locks nor clocks."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import pyarrow.fs as pafs
import pytest
import warehouse_sample as sample

from sidlake.errors import NotFoundError, StorageError
from sidlake.warehouse import releases as releases_module
from sidlake.warehouse.checkpoint_files import checkpoints
from sidlake.warehouse.identity import user_at_host
from sidlake.warehouse.keep import vacuum as vacuum_module
from sidlake.warehouse.keep.leases import readers, reading
from sidlake.warehouse.keep.retention import Retention
from sidlake.warehouse.keep.shared_leases import MAX_TERM
from sidlake.warehouse.keep.vacuum import vacuum
from sidlake.warehouse.laws import verify
from sidlake.warehouse.releases import content_hash, current, get, publish, rollback
from sidlake.warehouse.tables import TABLES, Warehouse

pytest.importorskip("moto", reason="moto is not installed: pip install 'sidlake[dev]'")

LAST = Retention(keep=1, days=None)
KEEP_ALL = Retention(keep=9, days=None)
READ = f"being read by {user_at_host()}"
READER = """
import sys
from sidlake.warehouse.keep.leases import reading
from sidlake.warehouse.releases import content_hash
from sidlake.warehouse.tables import Warehouse
warehouse = Warehouse(sys.argv[1])
with reading(warehouse, "r000001", term=float(sys.argv[2])) as release:
    print("reading", flush=True)
    sys.stdin.readline()
    print(content_hash(warehouse, release.tables, release.generation), flush=True)
"""
KILLED = """
import os, signal, sys
from datetime import timedelta
from sidlake.warehouse.keep import vacuum as module
from sidlake.warehouse.keep.retention import Retention
from sidlake.warehouse.tables import Warehouse
def killed(warehouse, files):
    os.kill(os.getpid(), signal.SIGKILL)
module._delete = killed
module.vacuum(Warehouse(sys.argv[1]), Retention(keep=1, days=None), grace=timedelta(0))
"""


@pytest.fixture(scope="module")
def made(object_store):
    """Two releases, of 12 and of 13 items."""
    warehouse = Warehouse.create_or_open("s3://shop/made")
    for count, parent in ((12, None), (13, "r000001")):
        publish(warehouse, sample.draft(sample.write(warehouse, count)), expected_parent=parent)
    return warehouse


@pytest.fixture
def warehouse(made, request):
    """A copy of both releases, as this machine opens it."""
    url = f"{made.url}-{request.node.name}"
    files = made.location.filesystem
    pafs.copy_files(made.url[5:], url[5:], source_filesystem=files, destination_filesystem=files)
    return Warehouse.create_or_open(url)


@pytest.fixture
def there(warehouse, tmp_path, monkeypatch):
    """The same warehouse as another machine opens it, with a lock and a folder of its own."""
    with monkeypatch.context() as patch:
        patch.setenv("SIDLAKE_CACHE", str(tmp_path / "there"))
        return Warehouse.create_or_open(warehouse.url)


@contextmanager
def reader(warehouse, folder, *, term=600.0):
    """Yield a process on another machine that reads r000001; a line tells it to stop."""
    command = [sys.executable, "-c", READER, warehouse.url, str(term)]
    environment = os.environ | {"SIDLAKE_CACHE": str(folder / "reader")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout.readline() == "reading\n"
            yield process
        finally:
            process.kill()


def freed(warehouse):
    return vacuum(warehouse, LAST, grace=timedelta(0))


def objects(warehouse, folder):
    selector = pafs.FileSelector(f"{warehouse.url[5:]}/{folder}", recursive=True, allow_not_found=True)
    infos = warehouse.location.filesystem.get_file_info(selector)
    return {info.path for info in infos if info.type == pafs.FileType.File}


def data_files(warehouse):
    return {path for path in objects(warehouse, "delta") if "/_delta_log/" not in path}


def live_files(warehouse):
    """What the newest versions of all tables name, as r000002 does."""
    return {path[5:] for table in TABLES if warehouse.exists(table) for path in warehouse.files(table)}


def is_whole(warehouse, release):
    return content_hash(warehouse, release.tables, release.generation) == release.content_hash


def until(true, seconds=15.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


# What goes


def test_what_another_machine_may_be_about_to_publish_stays_for_a_day(warehouse):
    plan = vacuum(warehouse, LAST, dry_run=True)
    assert (plan.unreadable, plan.files) == ([], {})
    tomorrow = vacuum(warehouse, LAST, dry_run=True, now=datetime.now(UTC) + timedelta(days=1, minutes=1))
    assert tomorrow.unreadable == ["r000001"]


def test_a_vacuum_killed_before_its_deletions_is_finished_by_that_of_another_machine(warehouse, there):
    done = subprocess.run([sys.executable, "-c", KILLED, warehouse.url], check=False)
    assert done.returncode == -signal.SIGKILL
    assert data_files(there) > live_files(there)
    with pytest.raises(NotFoundError, match=r"r000001 was vacuumed on .* by .*: its files are gone"):
        get(there, "r000001")
    assert is_whole(there, get(there))
    freed(there)
    assert data_files(there) == live_files(there)
    assert is_whole(there, get(there))
    assert verify(there, get(there).tables, generation="g1")


def test_a_checkpoint_that_is_half_uploaded_stops_no_vacuum_and_does_not_stay_for_good(warehouse):
    key = f"{warehouse.url}/checkpoints/r000001-abc"
    warehouse.location.put(f"{key}/model.safetensors", b"weights")
    assert checkpoints(warehouse) == []
    assert vacuum(warehouse, KEEP_ALL, dry_run=True).files == {}
    plan = vacuum(warehouse, KEEP_ALL, dry_run=True, now=datetime.now(UTC) + timedelta(days=1, minutes=1))
    assert plan.files == {"checkpoints": 1}


# Who reads


def test_what_is_read_on_one_machine_stays_whatever_another_vacuums(warehouse, tmp_path):
    with reader(warehouse, tmp_path) as process:
        plan = freed(warehouse)
        assert (plan.kept["r000001"], plan.unreadable) == (READ, [])
        told, _ = process.communicate("stop\n")
    assert told.strip() == get(warehouse, "r000001").content_hash
    assert readers(warehouse) == {}


def test_a_lease_is_renewed_for_as_long_as_its_reader_reads(warehouse):
    with reading(warehouse, "r000001", term=1.5):
        time.sleep(4)  # unrenewed, a lease holds for its term and a second
        assert readers(warehouse) == {"r000001": READ}
    assert readers(warehouse) == {}


def test_the_lease_of_a_killed_reader_holds_for_its_term_only(warehouse, tmp_path):
    with reader(warehouse, tmp_path, term=1.9) as process:
        process.kill()
        process.wait()
        assert readers(warehouse) == {"r000001": READ}
        until(lambda: readers(warehouse) == {})
    leases, before = objects(warehouse, "leases"), data_files(warehouse)
    plan = freed(warehouse)
    assert (plan.kept, plan.unreadable) == ({"r000002": "current; among the last 1"}, ["r000001"])
    assert len(before - data_files(warehouse)) == sum(plan.files.values()) > 0
    assert data_files(warehouse) == live_files(warehouse)
    assert is_whole(warehouse, get(warehouse))
    assert len(leases - objects(warehouse, "leases")) == 1


def test_the_clocks_of_machines_say_nothing_of_a_lease(warehouse):
    name = f"{warehouse.url}/leases/r000001.{'0' * 32}.json"
    about = {"holder": "ann@there", "since": "1999-01-01T00:00:00+00:00", "until": "1999-01-01T00:10:00+00:00", "term": 600}
    warehouse.location.put(name, json.dumps(about).encode())
    assert readers(warehouse) == {"r000001": "being read by ann@there"}
    about |= {"until": "2999-01-01T00:10:00+00:00", "term": 0.1}
    warehouse.location.put(name, json.dumps(about).encode())
    until(lambda: readers(warehouse) == {})


def test_a_lease_that_cannot_be_read_holds_and_what_is_no_lease_does_not(warehouse):
    for name in (f"r000001.{'0' * 32}.json", "readme.json", f"r000002.{'0' * 32}.json.old"):
        warehouse.location.put(f"{warehouse.url}/leases/{name}", b"{")
    assert readers(warehouse) == {"r000001": "being read by somebody whose lease cannot be read"}


@pytest.mark.parametrize("term", [0.0, -1.0, float("nan"), MAX_TERM + 1])
def test_a_term_that_is_none_is_refused(made, term):
    with pytest.raises(ValueError, match="term of a lease"), reading(made, term=term):
        pass


def test_a_lease_that_cannot_be_written_is_an_error_and_not_a_reader_without_one(warehouse, monkeypatch):
    monkeypatch.setattr(warehouse.location, "url", "s3://private/lake")
    with pytest.raises(StorageError, match=r"cannot write the lease of r000001.*pin the release"), ExitStack() as stack:
        stack.enter_context(reading(warehouse, "r000001"))


# Between the record of a vacuum and its deletions, which no lock joins


@contextmanager
def just_before(monkeypatch, module, name, action):
    """Let `action` happen right before the function `name` of `module` works, as another machine's may."""
    real = getattr(module, name)

    def later(*arguments, **named):
        monkeypatch.setattr(module, name, real)
        action()
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, later)
    yield
    assert getattr(module, name) is real


def test_a_reader_that_began_before_the_record_keeps_its_files_until_the_next_vacuum(warehouse, there, monkeypatch):
    with ExitStack() as stack:
        begun = []
        with just_before(
            monkeypatch, vacuum_module, "record_vacuumed", lambda: begun.append(stack.enter_context(reading(there, "r000001")))
        ):
            plan = freed(warehouse)
        assert (plan.unreadable, plan.kept["r000001"], plan.files) == (["r000001"], READ, {})
        assert is_whole(there, begun[0])
        with pytest.raises(NotFoundError, match="vacuumed"), reading(there, "r000001"):
            pass
    assert vacuum(warehouse, LAST, grace=timedelta(0), dry_run=True).files["items"] == 1


def test_what_another_machine_goes_back_to_before_the_record_stays(warehouse, there, monkeypatch):
    with just_before(monkeypatch, vacuum_module, "record_vacuumed", lambda: rollback(there, "r000001", "back")):
        freed(warehouse)
    assert current(warehouse).release_id == "r000003"
    assert is_whole(warehouse, get(warehouse))


def test_a_rollback_keeps_what_it_verifies_from_the_vacuum_of_another_machine(warehouse, there, monkeypatch):
    with just_before(monkeypatch, releases_module, "verify", lambda: freed(warehouse)):
        release = rollback(there, "r000001", "back")
    assert is_whole(there, get(there))
    assert release.tables == get(there, "r000001").tables
