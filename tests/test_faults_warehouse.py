"""Faults: processes killed while writing, full disks, read-only directories, two writers at once. Every process here is real."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sidlake.errors import StorageError, WarehouseBusy
from sidlake.warehouse.releases import history
from sidlake.warehouse.tables import Warehouse

_SAMPLE_PATH = str(Path(__file__).with_name("warehouse_sample.py"))
SAMPLE = SimpleNamespace(**runpy.run_path(_SAMPLE_PATH))

_PRELUDE = """
import json, os, runpy, sys, time
from pathlib import Path
from types import SimpleNamespace
from sidlake.errors import SidlakeError
from sidlake.warehouse import releases
from sidlake.warehouse.tables import Warehouse
SAMPLE = SimpleNamespace(**runpy.run_path(sys.argv[1]))
warehouse = Warehouse.create_or_open(sys.argv[2])
"""


def _command(body, root):
    return [sys.executable, "-c", _PRELUDE + body, _SAMPLE_PATH, str(root)]


@contextlib.contextmanager
def _child(body, root):
    """Yield a process that runs `body` and has printed a line; it is dead afterwards, without having had a say."""
    with subprocess.Popen(_command(body, root), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def _report(body, root, **options):
    """Return the JSON that `body` prints last."""
    result = subprocess.run(_command(body, root), capture_output=True, text=True, timeout=120, check=False, **options)
    assert result.stdout, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_a_second_process_is_refused_while_the_first_writes_and_welcome_once_it_is_killed(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    body = "with warehouse.writing('holder'):\n    print('ready', flush=True)\n    time.sleep(600)\n"
    with _child(body, tmp_path) as holder:
        with pytest.raises(WarehouseBusy, match=rf"run holder \(process {holder.pid}, since 2") as busy:
            warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="second")
        assert busy.value.details["pid"] == holder.pid
        assert not warehouse.exists("items")
    assert warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="second") == 0


def test_a_forked_child_does_not_keep_its_dead_parents_lock(tmp_path):
    body = (
        "holding = warehouse.writing('holder'); holding.__enter__()\n"
        "if os.fork() == 0:\n    print('ready', flush=True); os.close(1); time.sleep(5); os._exit(0)\n"
        "time.sleep(600)\n"
    )
    with _child(body, tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with Warehouse(tmp_path).writing("second"):
            pass


_PUBLISH_ONCE = """
run_id = f"run-{os.getpid()}"
tables = json.loads(Path(sys.argv[2], "tables.json").read_text())
print("ready", flush=True)
while not Path(sys.argv[2], "go").exists():
    pass
try:
    print(json.dumps(["won", releases.publish(warehouse, SAMPLE.draft(tables, run_id=run_id), expected_parent=None).release_id]))
except SidlakeError as error:
    print(json.dumps(["lost", type(error).__name__]))
"""


def test_of_two_publishers_at_once_exactly_one_wins(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    (tmp_path / "tables.json").write_text(json.dumps(SAMPLE.write(warehouse)))
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(_child(_PUBLISH_ONCE, tmp_path)) for _ in range(2)]
        (tmp_path / "go").touch()
        outcomes = sorted(json.loads(process.stdout.readline()) for process in both)
    assert [outcome[0] for outcome in outcomes] == ["lost", "won"]
    assert outcomes[0][1] in ("WarehouseBusy", "ReleaseConflict")
    assert [release.release_id for release in history(warehouse)] == ["r000001"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own of three megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _incompressible(count):
    names = [os.urandom(16).hex() for _ in range(count)]
    return SAMPLE.items(names, title=os.urandom(8).hex())


def test_a_full_disk_is_a_storage_error_and_the_head_stays(small_disk):
    warehouse = Warehouse.create_or_open(small_disk)
    warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="run")
    with pytest.raises(StorageError, match="free space") as failure:
        warehouse.append("items", _incompressible(60_000), run_id="run")
    assert str(small_disk) in str(failure.value)
    assert warehouse.version("items") == 0
    assert warehouse.read("items")["item_id"].to_pylist() == ["a"]
    assert warehouse.append("items", SAMPLE.items(["b"]), run_id="run") == 1


def test_a_commit_that_does_not_fit_on_the_disk_is_a_storage_error_and_the_head_stays(small_disk):
    warehouse = Warehouse.create_or_open(small_disk)
    warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="run")
    state = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(state.f_bavail * state.f_frsize))
    for write in (warehouse.append, warehouse.overwrite):
        with pytest.raises(StorageError, match="free space"):
            write("items", SAMPLE.items(["b"]), run_id="run")
    assert warehouse.version("items") == 0
    assert warehouse.read("items")["item_id"].to_pylist() == ["a"]


_BIG_WRITE = """
def attempt(call):
    try:
        return call()
    except SidlakeError as error:
        return [type(error).__name__, str(error)]
names = [os.urandom(16).hex() for _ in range(20000)]
outcome = attempt(lambda: warehouse.append("items", SAMPLE.items(names), run_id="run"))
print(json.dumps([outcome, warehouse.version("items"), warehouse.read("items").num_rows]))
"""


def test_a_file_size_limit_is_a_storage_error_and_the_head_stays(tmp_path):
    Warehouse.create_or_open(tmp_path).overwrite("items", SAMPLE.items(["a"]), run_id="run")
    limit = 100_000
    outcome, version, rows = _report(
        _BIG_WRITE, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert outcome[0] == "StorageError"
    assert "raise the limit" in outcome[1]
    assert (version, rows) == (0, 1)


def _obey_permissions():
    """Take from root the right to ignore permissions (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH) in the program started next."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


_READ_ONLY = """
def attempt(call):
    try:
        return call()
    except SidlakeError as error:
        return [type(error).__name__, str(error)]
write = attempt(lambda: warehouse.overwrite("items", SAMPLE.items(["b"]), run_id="run"))
stage = attempt(lambda: str(warehouse.staging("run")))
create = attempt(lambda: str(Warehouse.create_or_open(warehouse.root / "new" / "house")))
print(json.dumps([write, stage, create, warehouse.read("items")["item_id"].to_pylist()]))
"""


def test_a_read_only_warehouse_can_be_read_and_refuses_writes_by_name(tmp_path):
    root = tmp_path / "house"
    Warehouse.create_or_open(root).overwrite("items", SAMPLE.items(["a"]), run_id="run")
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    (root / "writer.lock").chmod(0o400)
    for folder in folders:
        folder.chmod(0o500)
    try:
        write, stage, create, names = _report(_READ_ONLY, root, preexec_fn=_obey_permissions)
    finally:
        for folder in folders:
            folder.chmod(0o700)
    assert [write[0], stage[0], create[0]] == ["StorageError"] * 3
    assert all(str(root) in outcome[1] and "writ" in outcome[1] for outcome in (write, stage, create))
    assert names == ["a"]


def test_a_table_directory_that_cannot_be_written_is_a_storage_error_and_the_head_stays(tmp_path):
    table = Path(Warehouse(tmp_path).table_url("items"))
    Warehouse.create_or_open(tmp_path).overwrite("items", SAMPLE.items(["a"]), run_id="run")
    for folder in (table, table / "_delta_log"):
        folder.chmod(0o500)
    try:
        outcome, version, rows = _report(_BIG_WRITE, tmp_path, preexec_fn=_obey_permissions)
    finally:
        for folder in (table, table / "_delta_log"):
            folder.chmod(0o700)
    assert outcome[0] == "StorageError"
    assert "make the directory writable" in outcome[1]
    assert (version, rows) == (0, 1)
