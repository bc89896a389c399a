"""A warehouse in an object store, on a real S3 server: the same rows, the same hashes, and one winner between machines."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import warehouse_sample as sample

from sidlake.errors import ContractError, NotFoundError, ReleaseConflict, StorageError
from sidlake.warehouse.catalog import query
from sidlake.warehouse.content import content_hash
from sidlake.warehouse.laws import verify
from sidlake.warehouse.places.location import absolute, locate
from sidlake.warehouse.releases import get, history, publish, rollback
from sidlake.warehouse.tables import Warehouse

pytest.importorskip("moto", reason="moto is not installed: pip install 'sidlake[dev]'")

WRITER = """
import os, sys
import warehouse_sample as sample
from sidlake.errors import ReleaseConflict
from sidlake.warehouse.tables import Warehouse
warehouse, me = Warehouse(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for line in sys.stdin:
    table, head = line.split()
    try:
        if head == "any":
            version = warehouse.append(table, sample.items([me]), run_id=me)
        else:
            version = warehouse.append_at(table, sample.quality(), head=None if head == "none" else int(head), run_id=me)
        print(version, flush=True)
    except ReleaseConflict:
        print("lost", flush=True)
"""


@pytest.fixture
def warehouse(object_store, request):
    return Warehouse.create_or_open(f"s3://shop/{request.node.name.replace('[', '/').strip(']')}/it's a lake")


@pytest.fixture(scope="module")
def filled(object_store):
    """The sample release, published in the store."""
    made = Warehouse.create_or_open("s3://shop/filled")
    publish(made, sample.draft(sample.write(made)), expected_parent=None)
    return made


# Addresses


@pytest.mark.parametrize("root", ["s3://shop/a/b", "s3://shop/a/b/", Path("s3://shop/a/b")])
def test_an_address_is_one_however_it_is_written(root):
    assert absolute(root) == "s3://shop/a/b"
    assert Warehouse(root).table_url("items") == "s3://shop/a/b/delta/items"


def test_an_address_without_a_bucket_is_refused():
    with pytest.raises(ValueError, match=r"s3://bucket/prefix"):
        locate("s3://")


def test_two_stores_with_the_same_address_share_nothing_on_this_machine(monkeypatch):
    folders = set()
    for endpoint in ("http://one:9000", "http://two:9000"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        folders.add(Warehouse("s3://shop/lake").root)
    assert len(folders) == 2


# Tables


def test_every_version_of_a_table_is_read_back(warehouse):
    names = sample.item_ids(5)
    assert warehouse.version("items") is None
    assert warehouse.overwrite("items", sample.items(names[:2]), run_id="run") == 0
    assert warehouse.append("items", sample.items(names[2:]), run_id="run") == 1
    assert warehouse.upsert("items", sample.items(names[:1], title="new"), ["item_id"], run_id="run") == 2
    assert warehouse.restore("items", 0, run_id="run") == 3
    found = [sorted(warehouse.read("items", version=version)["item_id"].to_pylist()) for version in range(4)]
    assert found == [names[:2], names, names, names[:2]]
    assert [warehouse.num_rows("items", version) for version in range(4)] == [2, 5, 5, 2]
    assert warehouse.scan("items", version=2).filter(pl.col("title").str.starts_with("new")).collect().height == 1
    with pytest.raises(NotFoundError, match="versions 0 to 3"):
        warehouse.read("items", version=9)


def test_a_partitioned_table_is_read_back_by_both_readers(warehouse):
    rows = sample.interactions(sample.item_ids(8))
    warehouse.overwrite("interactions", rows, run_id="run")
    order = [("user_id", "ascending"), ("ts", "ascending"), ("item_id", "ascending")]
    assert warehouse.read("interactions").sort_by(order) == rows.sort_by(order)
    days = warehouse.scan("interactions").filter(pl.col("day") == "2026-01-02").collect()
    assert days["day"].unique().to_list() == ["2026-01-02"]


def test_staged_files_become_a_table_and_leave_this_machine(warehouse):
    folder = warehouse.staging("run")
    files = [folder / f"{name}.parquet" for name in "ab"]
    for file in files:
        pq.write_table(sample.items([file.stem]), file)
    assert warehouse.append_files("items", files, run_id="run") == 0
    assert sorted(warehouse.read("items")["item_id"].to_pylist()) == ["a", "b"]
    assert not any(file.exists() for file in files)


def test_a_staged_file_that_breaks_the_contract_is_not_uploaded(warehouse):
    good, bad = (warehouse.staging("run") / name for name in ("good.parquet", "bad.parquet"))
    pq.write_table(sample.items(["a"]), good)
    pq.write_table(pa.table({"item_id": [1]}), bad)
    with pytest.raises(ContractError, match="bad"):
        warehouse.append_files("items", [good, bad], run_id="run")
    assert good.exists()
    assert not warehouse.exists("items")


# Two machines


@pytest.fixture(scope="module")
def shared(object_store):
    return Warehouse.create_or_open("s3://shop/two machines")


@pytest.fixture(scope="module")
def two_machines(shared, tmp_path_factory):
    """Two processes, each with a lock and a folder of its own, that write what is asked of them at the same time."""
    tmp_path = tmp_path_factory.mktemp("machines")
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, shared.url, name],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"SIDLAKE_CACHE": str(tmp_path / name), "PYTHONPATH": str(Path(__file__).parent)},
                )
            )
            for name in ("one", "two")
        ]
        for process in processes:
            stack.callback(process.kill)
        for folder in (tmp_path / "one", tmp_path / "two"):
            folder = folder / shared.root.name
            folder.mkdir(parents=True)
        assert [process.stdout.readline() for process in processes] == ["ready\n", "ready\n"]

        def ask(line):
            for process in processes:
                process.stdin.write(line + "\n")
                process.stdin.flush()
            return [process.stdout.readline().strip() for process in processes]

        yield ask


def test_of_two_machines_that_commit_on_the_same_version_exactly_one_wins(shared, two_machines):
    answers = [two_machines(f"sid_quality {'none' if number == 0 else number - 1}") for number in range(20)]
    assert [sorted(answer) for answer in answers] == [sorted([str(number), "lost"]) for number in range(20)]
    assert {answer.index("lost") for answer in answers} == {0, 1}
    assert shared.version("sid_quality") == 19
    assert shared.num_rows("sid_quality") == 20


def test_each_of_two_machines_is_told_the_version_that_it_wrote(shared, two_machines):
    shared.overwrite("items", sample.items([]), run_id="run")
    seen = set()
    for _ in range(5):
        for name, answer in zip(("one", "two"), two_machines("items any"), strict=True):
            before, after = (shared.read("items", version=int(answer) - back)["item_id"].to_pylist() for back in (1, 0))
            assert sorted([*before, name]) == sorted(after)
            seen.add(int(answer))
    assert seen == set(range(1, 11))


def test_a_run_that_another_machine_overtook_is_told_so(filled, monkeypatch, tmp_path):
    version = filled.version("releases")
    row = filled.read("releases").slice(0, 1)
    monkeypatch.setenv("SIDLAKE_CACHE", str(tmp_path))
    other = Warehouse.create_or_open(filled.url)
    assert other.append_at("releases", row.set_column(0, "release_id", [["r000099"]]), head=version, run_id="other") == version + 1
    with pytest.raises(ReleaseConflict, match="run again"):
        filled.append_at("releases", row, head=version, run_id="late")
    other.restore("releases", version)


# Releases


def test_the_same_rows_have_the_same_laws_and_the_same_hash_as_in_a_folder(filled, tmp_path):
    local = Warehouse.create_or_open(tmp_path)
    tables, release = sample.write(local), get(filled, "r000001")
    assert content_hash(local, tables, "g1") == release.content_hash
    publish(local, sample.draft(tables), expected_parent=None)
    assert verify(local, tables, generation="g1") == verify(filled, release.tables, generation="g1")


def test_a_rollback_leads_back_to_what_was_published(filled):
    release = get(filled, "r000001")
    back = rollback(filled, "r000001", "test")
    assert (back.parent, back.tables, back.content_hash) == ("r000001", release.tables, release.content_hash)
    assert [one.release_id for one in history(filled)] == ["r000001", back.release_id]


def test_the_catalogue_answers_from_the_store_and_reads_nothing_else(filled, tmp_path):
    sql = "SELECT count(*) AS rows, min(sid_of(item_id)) AS first FROM semantic_ids_at('r000001')"
    assert query(filled, sql).to_pylist() == [{"rows": 12, "first": "<a_0><b_0><c_0>"}]
    pq.write_table(pa.table({"secret": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="disabled by configuration"):
        query(filled, f"SELECT * FROM '{tmp_path}/other.parquet'")


@pytest.mark.parametrize(("damage", "told"), [(None, "is missing"), (b"PAR1", "has 4 bytes")], ids=["lost", "cut short"])
def test_an_object_that_is_not_what_was_committed_is_named(warehouse, damage, told):
    tables = sample.write(warehouse)
    (path,) = warehouse.files("codebooks")
    files, key = warehouse.location.filesystem, path.removeprefix("s3://")
    if damage is None:
        files.delete_file(key)
    else:
        with files.open_output_stream(key) as stream:
            stream.write(damage)
    with pytest.raises(StorageError, match=rf"codebooks version 0 {told}") as caught:
        verify(warehouse, tables, generation="g1")
    assert path in str(caught.value)


# Artifacts


def test_two_machines_that_fit_the_same_generation_keep_both_codebooks(warehouse, tmp_path, monkeypatch):
    for name in ("one", "two"):
        monkeypatch.setenv("SIDLAKE_CACHE", str(tmp_path / name))
        here = Warehouse.create_or_open(warehouse.url)
        path = here.artifacts_dir / "g0001" / "codebook.safetensors"
        path.parent.mkdir()
        path.write_text(name)
        here.keep(path, digest=f"digest of {name}")
    path = warehouse.artifacts_dir / "g0001" / "codebook.safetensors"
    assert [warehouse.fetched(path, f"digest of {name}").read_text() for name in ("one", "two")] == ["one", "two"]
    assert not warehouse.fetched(path, "unknown").exists()


def test_a_folder_that_was_not_uploaded_to_its_end_is_not_fetched(warehouse, tmp_path, monkeypatch):
    folder = warehouse.checkpoints_dir / "r000001-cafe"
    folder.mkdir()
    (folder / "model.safetensors").write_text("weights")
    warehouse.keep(folder)
    monkeypatch.setenv("SIDLAKE_CACHE", str(tmp_path))
    there = Warehouse.create_or_open(warehouse.url)
    assert (there.fetched(there.checkpoints_dir / folder.name) / "model.safetensors").read_text() == "weights"
    files, key = warehouse.location.filesystem, f"{warehouse.url.removeprefix('s3://')}/checkpoints/{folder.name}"
    files.copy_file(f"{key}/model.safetensors", f"{key}-half/model.safetensors")
    assert not there.fetched(there.checkpoints_dir / f"{folder.name}-half").exists()


# What may be wrong with a store


@pytest.mark.parametrize(
    ("address", "changed", "told"),
    [
        ("s3://nobody/lake", {}, "no bucket 'nobody'.*create it"),
        ("s3://private/lake", {}, "AWS_ACCESS_KEY_ID"),
        ("s3://shop/lake", {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "AWS_ACCESS_KEY_ID"),
        ("s3://shop/lake", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "AWS_ENDPOINT_URL and the network"),
        ("s3://careless/lake", {}, "If-None-Match.*conditional writes"),
    ],
    ids=["no such bucket", "no right", "no key", "no server", "no conditional writes"],
)
def test_a_store_that_cannot_be_used_is_refused_within_seconds(object_store, monkeypatch, address, changed, told, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # no credentials of whoever runs the tests
    for name, value in changed.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    start = time.monotonic()
    with pytest.raises(StorageError, match=told) as caught:
        Warehouse.create_or_open(address)
    assert address in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert time.monotonic() - start < 30


def test_a_store_that_goes_away_is_named_with_what_to_do(warehouse, monkeypatch):
    warehouse.overwrite("items", sample.items(["a"]), run_id="run")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    gone = Warehouse(warehouse.url)
    gone.root.mkdir(parents=True, exist_ok=True)
    for attempt in (lambda: gone.read("items"), lambda: gone.append("items", sample.items(["b"]), run_id="run")):
        with pytest.raises(StorageError, match="AWS_ENDPOINT_URL") as caught:
            attempt()
        assert warehouse.url in str(caught.value)
